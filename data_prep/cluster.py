"""Work on a Ray cluster: what is done, with what, and the results travel through Ray.

The disk need not be shared. The environment of this project must be there on every node.
"""

import contextlib
import functools
import pickle
import socket

from data_prep.processes import AHEAD, FUNCTIONS, in_order

SECONDS_TO_ANSWER = 5.0
MOST_LOSSES = 3  # of workers on the same batch

_load = functools.lru_cache(FUNCTIONS)(pickle.loads)


@contextlib.contextmanager
def on_cluster(address, workers=None):
    """Gives ``apply(function, batches)`` as ``in_processes`` does; batches go to a cluster.

    A worker that is lost, with its node or alone, takes nothing with it but time.

    Args:
        address: see ``connect``.
        workers: how many batches are worked on at once; None: one for each core of the cluster.

    Raises:
        ValueError: Ray is not installed, the cluster does not answer, or has no room.
    """
    ray = connect(address)
    room = int(ray.cluster_resources().get("CPU", 0))
    if not room:
        raise ValueError(
            f"the Ray cluster at {address} has no CPU for a worker; add a node (ray start "
            f"--address ...)"
        )
    remote = ray.remote(_call).options(
        num_cpus=1, max_retries=MOST_LOSSES, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}}
    )

    def apply(function, batches):
        pickled = ray.put(pickle.dumps(function))
        submit = functools.partial(remote.remote, pickled)
        return in_order(submit, functools.partial(_result, ray), batches, workers or room * AHEAD)

    yield apply


def _call(pickled, batch):
    return _load(pickled)(batch)


def _result(ray, answer):
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise ValueError(f"a worker on the cluster stopped: {error.cause}") from None
    except ray.exceptions.RayError as error:
        raise ValueError(f"workers on the cluster are lost again and again: {error}") from None


def connect(address):
    """The module ``ray``, connected to a cluster.

    Raises:
        ValueError: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ImportError:
        raise ValueError(
            "--engine ray needs Ray, which is not installed: pip install -r requirements-ray.txt"
        ) from None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address not in ("auto", "local"):
        try:
            socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no Ray cluster answers at --address {address} ({error}); start one with "
                f"ray start --head, and give the address that it prints"
            ) from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"cannot connect to a Ray cluster at --address {address}: {error}"
            ) from None
    return ray
