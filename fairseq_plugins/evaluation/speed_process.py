"""The process that translates while dad-speed measures: one model, alone in it.

A model exported to CTranslate2 is measured as it is shipped, in a process without fairseq
and PyTorch, which would be most of its memory. :class:`Translator` starts the process and asks it;
the rest of this module runs in it. Questions and answers are JSON, one a line; answers have a
pipe of their own, so that no library prints between them.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fairseq_plugins.generation.decoding import Decoding, DecodingFailed

# a module that stands as None cannot be found, so that fairseq_plugins does without it
BOOT = """
import sys
if {light}:
    sys.modules["fairseq"] = None
from fairseq_plugins.evaluation.speed_process import main
main({pipe})
"""
# a measurement in batches takes the sentences again where they are fewer than this
LEAST_SECONDS = 0.1
LEAST_BATCHES = 4  # for each worker, as the first that is done waits for the last


class Translator:
    """A model in a process of its own.

    Args:
        name: what the user calls it, for messages.
        settings: of :func:`load`, JSON types only.

    Attributes:
        found: what :meth:`Measured.describe` returns, a dictionary.

    Raises:
        ValueError: the model could not be loaded.
    """

    def __init__(self, name, settings):
        self.name = name
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        near_end, pipe = os.pipe()
        boot = BOOT.format(light=settings["backend"] == "ctranslate2", pipe=pipe)
        self._answers = open(near_end, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", boot], env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=2, pass_fds=[pipe], encoding="utf-8",
        )  # fmt: skip
        os.close(pipe)
        try:
            self.found = self.ask("load", started=time.time(), **settings)
        except BaseException:
            self.close()
            raise

    def ask(self, what, **arguments):
        """What method ``what`` of :class:`Measured` returns.

        Raises:
            ValueError: it failed, or the process died.
        """
        try:
            self._process.stdin.write(json.dumps([what, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            how = f"by signal {-status}, perhaps for want of memory" if status < 0 else "see above"
            raise ValueError(f"{self.name}: the process that translates ended ({how})")
        answer, error = json.loads(line)
        if error:
            raise ValueError(f"{self.name}: {error}")
        return answer

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # what it did not read is still in our buffer
            self._process.stdin.close()
        self._answers.close()


# -- in the process ------------------------------------------------------------------------


def main(pipe):
    """Answer what is asked, into the pipe of that number, until there are no more questions."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks says when to stop
    with open(pipe, "w", encoding="utf-8") as answers:
        answer(sys.stdin, answers)


def answer(questions, answers):
    """Read lines [method, arguments] from ``questions``; write lines [what it returns, error]."""
    measured = None
    for line in questions:
        what, arguments = json.loads(line)
        try:
            if what == "load":
                measured = load(**arguments)
                found = measured.describe()
            else:
                found = getattr(measured, what)(**arguments)
            reply = [found, None]
        except (ValueError, OSError, DecodingFailed) as error:
            reply = [None, str(error) or type(error).__name__]
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def load(*, started, backend, folder, beams, device, workers, threads, **settings):
    """A ``Measured``.

    Args:
        started: time of day when this process was begun.
        backend: "ctranslate2" or "fairseq".
        folder: EXPORTED, CONVERTED or MODEL folder, whichever the backend reads.
        beams: {mode: size of the beam}.
        device: "cpu" or "cuda".
        workers, threads: batches at once, threads for each.
        settings: more of the backend's.
    """
    if backend == "ctranslate2":
        from fairseq_plugins.generation import ctranslate2_backend as module

        use_threads, at_once = _keep_threads, workers

        def make(decoding):
            return module.CTranslate2Backend(
                folder, decoding, device=device, workers=workers, threads=threads, **settings
            )
    else:
        from torch import set_num_threads as use_threads

        from data_prep.vocabulary import read_vocabulary
        from fairseq_plugins.generation import fairseq_backend as module
        from fairseq_plugins.generation.models import ModelFolder

        at_once = 1

        def make(decoding):
            # open_model has checked it for the process that asks
            model = ModelFolder(Path(folder), False, read_vocabulary(folder), {})
            return module.FairseqBackend(
                [model], decoding, device=device, threads=workers * threads, **settings
            )

    batch_tokens = module.DEFAULT_BATCH_TOKENS[device]
    decodings = {mode: Decoding(size, batch_tokens=batch_tokens) for mode, size in beams.items()}
    found = {
        "start_seconds": time.time() - started, "library_memory_bytes": resident(),
        "batch_tokens": batch_tokens,
    }  # fmt: skip
    clock = time.perf_counter()
    loaded = make(next(iter(decodings.values())))
    found["load_seconds"] = time.perf_counter() - clock
    found["source_positions"] = loaded.source_positions
    found["compute_type"] = getattr(loaded, "compute_type", settings["compute_type"])
    return Measured(
        loaded, decodings, found, at_once, {"batched": workers * threads, "alone": threads},
        use_threads,
    )  # fmt: skip


def _keep_threads(number):
    """CTranslate2 takes a worker for each batch, whose threads were settled as it was loaded."""


class Measured:
    """A model and the clock.

    Args:
        backend: see ``CTranslate2Backend``.
        decodings: {mode: ``Decoding``}.
        found: what loading it told, a dictionary.
        at_once: batches that the backend decodes at the same time.
        threads: {"batched": threads of all of them, "alone": for a single sentence}.
        use_threads: called with the number of threads before something is measured.
    """

    def __init__(self, backend, decodings, found, at_once, threads, use_threads):
        self._decodings, self._found = decodings, found
        self._backends = {mode: backend.searching(how) for mode, how in decodings.items()}
        self._at_once, self._threads, self._use_threads = at_once, threads, use_threads
        self._sentences = []

    def describe(self):
        """Seconds to start and to load, memory before loading, compute type, sizes."""
        return self._found

    def take(self, sentences):
        """Remember the piece lists that the other methods number."""
        self._sentences = sentences

    def batched(self, mode, numbers):
        """Translate sentences in batches, all under way at once, and again if that is little.

        Returns:
            seconds; the number of sentences translated in them; pieces of the best
            translations, ends of sentence included, of one time.
        """
        self._use_threads(self._threads["batched"])
        chosen = [self._sentences[number] for number in numbers]
        session = self._backends[mode].session(seed=0)
        done, clock = 0, time.perf_counter()
        while True:
            batches = list(self._decodings[mode].batches(chosen))
            times = math.ceil(LEAST_BATCHES * self._at_once / len(batches))
            waits = [
                session.begin([chosen[index] for index in batch]) for batch in times * batches
            ]
            translated = [hypotheses for wait in waits for hypotheses in wait()]
            done += len(translated)
            seconds = time.perf_counter() - clock
            if seconds >= LEAST_SECONDS:
                break
        return {"seconds": seconds, "sentences": done, "tokens": _pieces(translated) // times}

    def one_by_one(self, mode, numbers):
        """Translate sentences one after another: seconds of each, and pieces as above."""
        self._use_threads(self._threads["alone"])
        session, seconds, translated = self._backends[mode].session(seed=0), [], []
        for number in numbers:
            clock = time.perf_counter()
            translated += session.begin([self._sentences[number]])()
            seconds.append(time.perf_counter() - clock)
        return {"seconds": seconds, "tokens": _pieces(translated)}

    def first_token(self, mode, numbers):
        """Compute the first piece of greedy translations one after another: seconds of each."""
        self._use_threads(self._threads["alone"])
        seconds = []
        for number in numbers:
            clock = time.perf_counter()
            self._backends[mode].first_piece(self._sentences[number])
            seconds.append(time.perf_counter() - clock)
        return {"seconds": seconds}

    def memory(self):
        """Most memory that this process has held so far, in bytes."""
        return peak()


def _pieces(translated):
    return sum(hypotheses[0].length for hypotheses in translated)


def resident():
    """Memory that this process holds now (resident set), in bytes."""
    return _status("VmRSS")


def peak():
    """Most memory that this process has held (resident set), in bytes."""
    return _status("VmHWM")


def _status(field):
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux; what it tells may include the process that began this one
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (line,) = (line for line in status.read_text().split("\n") if line.startswith(field))
    return int(line.split()[1]) * 1024
