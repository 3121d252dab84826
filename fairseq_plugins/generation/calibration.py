"""Choose what decodes fastest on this machine: measured on a sample of the corpus, with the model.

What is left open is tried in turn, the most rewarding first: the arithmetic, how many batches
at once with how many threads each, the size of a batch. Another value is taken when it is
clearly faster. Measuring stops after a share of the time that the corpus would take, so
that it pays.
"""

import time
from dataclasses import dataclass, replace

from data_prep.processes import usable_cores
from fairseq_plugins.generation.teacher import Teacher, decode

MARGIN = 1.04  # how much faster another value must be
SAMPLE_SECONDS = 2.5  # of decoding in one measurement, about
BATCHES_FOR_A_WORKER = 4  # fewer say little of a batch size, as workers wait for each other
SHARE_OF_RUN = 0.1  # longest calibration, as a share of what the corpus would take
FIRST_SAMPLE = 48  # lines
MOST_LINES = 4000
BATCH_TOKENS = {"cpu": (512, 1024, 2048, 4096), "cuda": (4096, 16384, 65536)}
# a type that makes clearly worse translations, by the model's own score, is not taken
MOST_SCORE_LOST = 0.02  # nats per piece


@dataclass(frozen=True)
class Speed:
    """Settings that do not shape what is asked for, only how fast it comes.

    ``compute_type`` and ``batch_tokens`` may change the last digits of scores, and with them a
    few translations; ``workers`` and ``threads`` may not.
    """

    compute_type: str
    workers: int
    threads: int
    batch_tokens: int

    def __str__(self):
        plural = "s" if self.workers > 1 else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"{self.compute_type}, {self.workers} worker{plural} with {threads} each, "
            f"batches of {self.batch_tokens:,} pieces"
        )


def calibrate(choice, start, given, decoding, codec, sample, lines, longest, say):
    """The fastest ``Speed`` that was found, and the record of what was measured.

    Args:
        choice: ``Choice``, prepared.
        start: ``Speed`` that is taken unless something is faster.
        given: names of its fields that the user has set.
        decoding: ``Decoding``; its batch size is replaced.
        codec: of the model.
        sample: list of lines, spread over the corpus.
        lines: number of lines in the corpus.
        longest: most pieces of a source line, or None.
        say: function that tells the user.

    Returns:
        ``Speed``; list of dictionaries with the settings and ``sentences_per_second``.
    """
    alternatives = _alternatives(choice, start, given)
    if not any(alternatives.values()):
        return start, []
    measured = {}

    def measure(speed):
        if speed not in measured:
            measured[speed] = _measure(choice, speed, decoding, codec, chosen, longest)
            seconds_left[0] -= measured[speed]["seconds"]
        return measured[speed]["sentences_per_second"]

    chosen, seconds_left = sample[:FIRST_SAMPLE], [float("inf")]
    _measure(choice, start, decoding, codec, chosen, longest)  # warms up
    first = _measure(choice, start, decoding, codec, chosen, longest)["sentences_per_second"]
    run_seconds = lines / first
    if run_seconds * SHARE_OF_RUN < 4 * SAMPLE_SECONDS:
        say(f"{lines:,} lines take about {run_seconds:,.0f} s, not worth a calibration: {start}")
        return start, []
    seconds_left[0] = run_seconds * SHARE_OF_RUN
    chosen = sample[: max(FIRST_SAMPLE, int(first * SAMPLE_SECONDS))]
    best, reasons = start, []
    pieces = sum(len(sentence) + 1 for sentence in codec.encode_batch(chosen))
    for field, values in alternatives.items():
        for value in values:
            too_few = value.get("batch_tokens", 0) * best.workers * BATCHES_FOR_A_WORKER > pieces
            if seconds_left[0] <= 0 or too_few:
                break
            tried = replace(best, **value)
            ratio = measure(tried) / measure(best)
            lost = measured[best]["score"] - measured[tried]["score"]
            if field == "compute_type" and lost > MOST_SCORE_LOST:
                reasons.append(f"{tried.compute_type} loses {lost:.3f} nats per piece")
            elif ratio > MARGIN:
                words = ", ".join(f"{name} {number}" for name, number in value.items())
                reasons.append(f"{words.replace('_', ' ')}: {ratio:.2f}×")
                best = tried
    spent = sum(entry["seconds"] for entry in measured.values())
    say(
        f"calibrated on {len(chosen):,} lines in {spent:.0f} s: {best} "
        f"({'; '.join(reasons) or 'nothing else was faster'}); "
        f"{measured[best]['sentences_per_second']:,.0f} sentences/s"
    )
    return best, [{**vars(speed), **entry} for speed, entry in measured.items()]


def _alternatives(choice, start, given):
    """{field: list of changes to try}, without what the user has set."""
    alternatives = {}
    if "compute_type" not in given:
        alternatives["compute_type"] = [
            {"compute_type": name} for name in choice.compute_types() if name != start.compute_type
        ]
    if choice.device == "cpu" and not {"workers", "threads"} & given:
        cores = usable_cores()
        alternatives["workers"] = [
            {"workers": cores // threads, "threads": threads}
            for threads in _halvings(cores)
            if cores // threads != start.workers
        ]
    if "batch_tokens" not in given:
        alternatives["batch_tokens"] = [
            {"batch_tokens": size}
            for size in BATCH_TOKENS[choice.device]
            if size != start.batch_tokens
        ]
    return alternatives


def _halvings(number):
    while number >= 1:
        yield number
        number //= 2


def _measure(choice, speed, decoding, codec, lines, longest):
    backend = replace(choice, compute_type=speed.compute_type).load(
        replace(decoding, batch_tokens=speed.batch_tokens),
        workers=speed.workers, threads=speed.threads,
    )  # fmt: skip
    teacher = Teacher(
        codec, backend, replace(decoding, batch_tokens=speed.batch_tokens),
        longest=longest or backend.source_positions - 1, cut=True,
    )  # fmt: skip
    shard = teacher.shard(0, lines)
    started = time.perf_counter()
    for _ in decode([shard], workers=speed.workers):
        pass
    seconds = time.perf_counter() - started
    best = [found[0] for found in shard.candidates if found]
    pieces = sum(candidate.pieces for candidate in best)
    return {
        "sentences_per_second": round(len(lines) / seconds, 2),
        "score": round(sum(candidate.log_prob for candidate in best) / max(pieces, 1), 4),
        "seconds": round(seconds, 2),
    }
