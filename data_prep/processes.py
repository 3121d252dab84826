"""Batches through worker processes, in order."""

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
from pathlib import Path

AHEAD = 2  # batches waiting for each worker
FUNCTIONS = 8  # that a worker remembers
CORES_OF_CONTAINER = Path("/sys/fs/cgroup/cpu.max")  # microseconds in a period, and the period


def usable_cores():
    """Number of cores that this process may use.

    PYTHON_CPU_COUNT says so, where it is set (Python heeds it from 3.13 on, we always): by dad-run
    for stages that share the machine. Else those that the process may run on, and no more than a
    container's limit of processor time comes to.
    """
    told = os.environ.get("PYTHON_CPU_COUNT", "")
    if told.isdigit() and int(told):
        return int(told)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = CORES_OF_CONTAINER.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


@contextlib.contextmanager
def in_processes(workers, preload=(), folder=None):
    """Gives ``apply(function, batches)``: yields the results, in the order of the batches.

    With one worker everything happens in this process. A function may be large: it goes to each
    worker once, not with every batch.

    Args:
        workers: number of processes.
        preload: names of modules that are slow to import; one process imports them, and each
            worker is a copy of it.
        folder: where functions lie for the workers meanwhile; by default among the system's
            temporary files, where they stay if this process is killed.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield functools.partial(_apply, executor, workers * AHEAD, folder)
    except BrokenProcessPool:
        raise ValueError(
            "a worker process was killed, perhaps for want of memory; try fewer --workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _apply(executor, most, folder, function, batches):
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".function") as file:
        pickle.dump(function, file)
        file.flush()

        def submit(batch):
            with _undisturbed():
                return executor.submit(_call, file.name, batch)

        yield from in_order(submit, lambda pending: pending.result(), batches, most)


@contextlib.contextmanager
def _undisturbed():
    """What SIGINT and SIGTERM raise here waits for the end.

    A pool that is interrupted while it starts a process would wait for that process for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = {number: signal.signal(number, lambda number, _: came.append(number))
              for number in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in came:
        signal.raise_signal(number)


def in_order(submit, result, batches, most):
    """Yield the results of batches in their order, with so many of them under way at most.

    Args:
        submit: begins the work on a batch; what it gives, ``result`` waits for.
    """
    pending = deque()
    for batch in batches:
        pending.append(submit(batch))
        if len(pending) == most:
            yield result(pending.popleft())
    while pending:
        yield result(pending.popleft())


def _call(path, batch):
    return _function(path)(batch)


@functools.lru_cache(FUNCTIONS)
def _function(path):
    return pickle.loads(Path(path).read_bytes())


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # a worker whose parent was killed would wait for work for ever
    multiprocessing.parent_process().join()
    os._exit(1)
