"""Batches through worker processes, in order."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

AHEAD = 2  # batches waiting for each worker


@contextlib.contextmanager
def in_processes(workers, preload=()):
    """Gives ``apply(function, batches)``: yields the results, in the order of the batches.

    With one worker everything happens in this process.

    Args:
        workers: number of processes.
        preload: names of modules that are slow to import; one process imports them, and each
            worker is a copy of it.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
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
