"""Decode on a Ray cluster: shards travel to workers on any node, and so does the model.

The disk need not be shared: the model's files go through Ray's object store, the text of a
shard with its task. A worker that is lost, with its node or alone, takes nothing with it but
time: its shards go to others, and another worker is started where there is room. The
environment of this project must be there on every node.
"""

import tempfile
import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.cluster import connect
from fairseq_plugins.generation.backends import Choice
from fairseq_plugins.generation.converted import ConvertedModel, open_converted
from fairseq_plugins.generation.decoding import Decoding
from fairseq_plugins.generation.job import TakenShard, say
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.generation.teacher import Teacher, decode

SHARDS_PER_WORKER = 2  # one that is decoded, one that waits
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_NEWS = 30.0
MOST_LOSSES = 3  # of workers, without a finished shard between them, for each worker


@dataclass(frozen=True)
class Parcel:
    """All that a worker needs to decode.

    Args:
        choice: ``Choice``, without its models.
        folders: files of each model, a list of {name: bytes}.
        converted: for a CONVERTED folder what ``open_converted`` was given, apart from the
            subwords; else None.
        decoding: ``Decoding``.
        longest: most pieces of a source line.
        cut: whether longer lines are translated as far as that.
        threads: of a worker.
    """

    choice: Choice
    folders: list
    converted: dict | None
    decoding: Decoding
    longest: int
    cut: bool
    threads: int

    @classmethod
    def pack(cls, choice, converted, **settings):
        """The parcel of a ``Choice`` that is prepared; ``converted`` as for ``open_converted``."""
        (first, *_), exported = choice.models, choice.exported
        if exported is None:
            folders = [_files(model.path) for model in choice.models]
        else:
            folders = [_files(exported)]
        is_converted = isinstance(first, ConvertedModel)
        if is_converted:
            folders[0] |= {_subwords(side): path.read_bytes()
                           for side, path in first.subword_files.items()}  # fmt: skip
        around = {name: value for name, value in converted.items() if "subwords" not in name}
        choice = replace(choice, models=[])
        return cls(choice, folders, around if is_converted else None, **settings)

    def load(self, place):
        """The ``Teacher``, its files written to folder ``place``."""
        models = []
        for number, files in enumerate(self.folders):
            folder = Path(place) / str(number)
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            models.append(self._open(folder))
        exported = None if self.choice.exported is None else models[0].path
        choice = replace(self.choice, models=models, exported=exported)
        backend = choice.load(self.decoding, workers=1, threads=self.threads)
        return Teacher(
            models[0].codec(), backend, self.decoding, longest=self.longest, cut=self.cut
        )

    def _open(self, folder):
        if self.converted is not None:
            subwords = {f"{side}_subwords": folder / _subwords(side)
                        for side in ("source", "target")}  # fmt: skip
            return open_converted(folder, **{**self.converted, **subwords})
        return open_model(folder, self.choice.trust, allow_unknown_vocabulary=True)


class Worker:
    """What runs on a node: a teacher and the shards that it is given."""

    def __init__(self, parcel):
        self._place = tempfile.TemporaryDirectory(prefix="dad-generate-")
        self._teacher = parcel.load(self._place.name)
        self._stopped = threading.Event()
        self._decoding = threading.Lock()

    def ready(self):
        """Answer as soon as the model is loaded."""
        return True

    def decode(self, number, lines, known):
        """Candidates and special lines of a shard, and its target pieces."""
        # the next shard has come already, and a backend decodes for one caller at a time
        with self._decoding:
            shard = self._teacher.shard(number, lines, known)
            for _ in decode([shard], workers=1, should_stop=self._stopped.is_set):
                pass
        return shard.candidates, shard.special, shard.tokens

    def stop(self):
        """Finish the batches under way and no more."""
        self._stopped.set()


class RayEngine:
    """Decodes on a cluster.

    Args:
        parcel: ``Parcel``.
        address: of the cluster: HOST:PORT, ray://HOST:PORT, "auto" for the one that this machine
            belongs to, "local" to start one on this machine.
        workers: how many; None: as many as the cluster has room for.

    Raises:
        ValueError: Ray is not installed, the cluster does not answer, or has no room.
    """

    def __init__(self, parcel, *, address, workers):
        self._ray = connect(address)
        on_gpu = parcel.choice.device == "cuda"
        room = self._ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0)
        fitting = int(room) if on_gpu else int(room // parcel.threads)
        if workers is None and not fitting:
            raise ValueError(
                f"the Ray cluster at {address} has {room:g} {'GPUs' if on_gpu else 'CPUs'}, no "
                f"room for a worker; add a node (ray start --address ...)"
            )
        self._size = workers or fitting
        self._parcel = self._ray.put(parcel)
        self._remote = self._ray.remote(Worker).options(
            num_gpus=1 if on_gpu else 0, num_cpus=0 if on_gpu else parcel.threads,
            max_concurrency=SHARDS_PER_WORKER + 1,  # its shards, and stop
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(parcel.threads)}},
        )  # fmt: skip
        self._losses_at_start = 0
        self._crew = {}  # worker: shards that it has
        self._loading = {}  # answer that comes when it has loaded the model: worker
        self._ready = set()
        for _ in range(self._size):
            self._start()
        while not self._ready:  # so that loading is not taken for decoding
            if not self._note_ready(SECONDS_BETWEEN_NEWS):
                say("waiting for room on the Ray cluster and for a worker to load the model")

    def decode(self, tasks, should_stop, advance):
        """Yield shards; ``tasks`` are (number, lines, what an earlier run kept)."""
        tasks, again = iter(tasks), deque()
        waiting = {}  # answer that will come: worker, shard
        stopped, exhausted, losses = False, False, 0
        crew = self._crew
        while True:
            if should_stop() and not stopped:
                stopped = True
                for worker in self._ready:
                    worker.stop.remote()
            while not stopped and not (exhausted and not again):
                free = [w for w in self._ready if len(crew[w]) < SHARDS_PER_WORKER]
                if not free:
                    break
                task = again.popleft() if again else next(tasks, None)
                if task is None:
                    exhausted = True
                    break
                worker = min(free, key=lambda w: len(crew[w]))
                crew[worker].append(task)
                waiting[worker.decode.remote(*task)] = (worker, task)
            if (stopped or exhausted and not again) and not any(crew.values()):
                break
            self._note_ready(0)
            if not waiting:
                self._note_ready(SECONDS_BETWEEN_LOOKS)
                continue
            done, _ = self._ray.wait(list(waiting), timeout=SECONDS_BETWEEN_LOOKS)
            for answer in done:
                worker, task = waiting.pop(answer)
                if worker not in crew:  # lost, and its shards are with others
                    continue
                try:
                    result = self._ray.get(answer)
                except self._ray.exceptions.RayTaskError as error:
                    raise ValueError(f"a worker on the cluster stopped: {error.cause}") from None
                except self._ray.exceptions.RayError as error:
                    losses += 1
                    if losses > MOST_LOSSES * self._size:
                        raise ValueError(
                            f"workers on the cluster are lost again and again: {error}"
                        ) from None
                    lost = self._dismiss(worker)
                    say(f"a worker on the cluster was lost; its {len(lost)} shards go to others")
                    again.extend(lost)
                    self._start()
                    continue
                crew[worker].remove(task)
                losses = 0
                number, lines, _ = task
                candidates, special, tokens = result
                complete = all(found is not None for found in candidates)
                advance(sum(found is not None for found in candidates))
                yield TakenShard(number, candidates, special, tokens, complete)
        if stopped:
            for worker in crew:
                self._ray.kill(worker)

    def _start(self):
        worker = self._remote.remote(self._parcel)
        self._crew[worker] = deque()
        self._loading[worker.ready.remote()] = worker

    def _dismiss(self, worker):
        self._ready.discard(worker)
        return self._crew.pop(worker)

    def _note_ready(self, timeout):
        """Take in workers that have loaded the model; False if there are none within seconds."""
        if not self._loading:
            return False
        done, _ = self._ray.wait(list(self._loading), timeout=timeout)
        for answer in done:
            worker = self._loading.pop(answer)
            try:
                self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                raise ValueError(f"a worker on the cluster cannot start: {error.cause}") from None
            except self._ray.exceptions.RayActorError as error:
                self._losses_at_start += 1
                if self._losses_at_start > MOST_LOSSES * self._size:
                    raise ValueError(f"workers on the cluster cannot start: {error}") from None
                self._dismiss(worker)
                self._start()
                continue
            self._ready.add(worker)
        return bool(done)


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _subwords(side):
    return f"{side}.subwords"
