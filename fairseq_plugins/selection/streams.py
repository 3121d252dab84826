"""Batches on their way: through worker processes in order, and onto disk and back."""

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

AHEAD = 2  # batches waiting for each worker


@contextlib.contextmanager
def in_processes(workers):
    """Gives ``apply(function, batches)``: yields the results, in the order of the batches.

    With one worker everything happens in this process.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("forkserver")
    # the server imports torch once, and each worker is a copy of it
    context.set_forkserver_preload(["fairseq_plugins.selection.steps"])
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield functools.partial(_apply, executor, workers * AHEAD)
    except BrokenProcessPool:
        raise ValueError(
            "a worker process was killed, perhaps for want of memory; try fewer --workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _apply(executor, most, function, batches):
    pending = deque()
    for batch in batches:
        pending.append(executor.submit(function, batch))
        if len(pending) == most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # a worker whose parent was killed would wait for work for ever
    multiprocessing.parent_process().join()
    os._exit(1)


class Spool:
    """Objects written to a nameless file in ``folder`` and read back in order, once."""

    def __init__(self, folder):
        self._file = tempfile.TemporaryFile(dir=folder)

    def write(self, thing):
        pickle.dump(thing, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def read(self):
        """Yield everything that was written."""
        with self._file as file:
            file.seek(0)
            while True:
                try:
                    yield pickle.load(file)
                except EOFError:
                    return
