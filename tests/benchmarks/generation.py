"""How fast a corpus is decoded: same model, same text, same beam, same cores, one run.

The sides take turns, round by round; the median round and the median of the rounds' ratios
are printed, and BLEU of every side, so that speed is not bought with quality. What is counted:

  fairseq      fairseq-generate's own sentences/s: the search alone. Of several --max-tokens
               the fastest in the first round is kept.
  ctranslate2  a bare Translator.translate_iterable over sentences that are encoded already, with
               the best settings of a grid that is tried before the rounds: arithmetic,
               workers × threads, batches, one length limit or one for each class of lengths.
               Only translating is timed.
  dad          dad-generate, calibrated in the first round; the later rounds are given what that
               chose. Timed from the first line that is read to the last shard that is written:
               subwords, hashes and files are in it.
  dad1, dad2   the same with 1 and with 2 workers of one thread each. --compute-type and
               --batch-tokens or else what the calibration chose.
  ray          the same with 2 workers on a Ray cluster. Sending text and results is in it; Ray,
               its workers and their models are started before the clock.

Loading a model is counted on no side. Only fairseq-generate may take a part of the text, as it
is slow: --fairseq-lines. BLEU is then that of the part, on all sides.

Examples:
  python tests/benchmarks/generation.py --model runs/quickstart/teacher/general \\
      --data runs/quickstart/corpora/general/prepared --repeat 100 --fairseq-lines 2000
  python tests/benchmarks/generation.py --model teacher/general --source train.de \\
      --references train.en --sides dad1,dad2,ray --compute-type int8 --batch-tokens 1024
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import ctranslate2
from sacrebleu.metrics import BLEU

import fairseq_plugins
from data_prep.binarise import binarise, find_command
from data_prep.files import find_text, read_bitext, read_lines, write_whole
from data_prep.manifest import package_versions
from data_prep.processes import usable_cores
from fairseq_plugins.export.conversion import convert
from fairseq_plugins.generation import ray_engine
from fairseq_plugins.generation.backends import COMPUTE_TYPES
from fairseq_plugins.generation.ctranslate2_backend import positions_of
from fairseq_plugins.generation.decoding import Decoding, length_class
from fairseq_plugins.generation.generate import MAX_SOURCE_PIECES, SHARD_LINES, generate
from fairseq_plugins.generation.models import open_model

# what is set against what
RATIOS = (
    ("dad", "fairseq"), ("ctranslate2", "fairseq"), ("dad", "ctranslate2"), ("dad2", "dad1"),
    ("ray", "dad2"),
)  # fmt: skip
BLEU_APART = 0.2  # more than this is pointed out
COMPUTE = ("float32", "int8")  # CTranslate2's arithmetic on CPU
BATCHES = (
    (32, "examples"), (64, "examples"), (512, "tokens"), (1024, "tokens"), (2048, "tokens"),
    (4096, "tokens"),
)  # fmt: skip
FINALISTS = 3  # of the grid, measured again on three times as much text
SECONDS_TO_START = 300  # for Ray's workers


@dataclass
class Text:
    """What all sides translate; ``part`` numbers the lines that fairseq-generate takes."""

    source: Path
    lines: list
    references: list
    part: range


@dataclass
class Turn:
    """One side's round: its own clock, and its translations by number of line."""

    sentences_per_second: float
    translations: dict


class Fairseq:
    """fairseq-generate on the binarised text."""

    def __init__(self, args, model, text, folder):
        self._args, self._model, self._text = args, model, text
        self._max_tokens = args.max_tokens
        languages = model.vocabulary.source_lang, model.vocabulary.target_lang
        plain, self._data = folder / "part", folder / "binaries"
        plain.mkdir()
        for lang, lines in zip(languages, (text.lines, text.references), strict=True):
            write_lines(plain / f"test.{lang}", [lines[number] for number in text.part])
        binarise(plain, model.path, self._data, splits=("test",))

    def turn(self):
        """A ``Turn``; in the first, all --max-tokens are tried and the fastest kept."""
        turns = {size: self._decode(size) for size in self._max_tokens}
        best = max(turns, key=lambda size: turns[size].sentences_per_second)
        self._max_tokens = [best]
        return turns[best]

    def __str__(self):
        return f"--max-tokens {self._max_tokens[0]}, {self._args.threads} threads"

    def _decode(self, max_tokens):
        done = subprocess.run(
            [
                find_command("fairseq-generate"), str(self._data),
                "--user-dir", fairseq_plugins.__path__[0], "--task", "sequence_distillation",
                "--path", str(self._model.weights), "--gen-subset", "test", "--cpu",
                "--beam", str(self._args.beam), "--max-tokens", str(max_tokens),
                "--max-len-a", "2", "--max-len-b", "20",
            ],
            capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(self._args.threads)},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"fairseq-generate failed:\n{done.stderr[-2000:]}")
        subwords = self._model.vocabulary.subwords()
        translations = {}
        for line in done.stdout.splitlines():
            if line.startswith("H-"):
                number, _, pieces = line.split("\t")
                translations[self._text.part[int(number[2:])]] = subwords.decode(pieces.split())
        (speed,) = re.findall(r"\(([\d.]+) sentences/s", done.stdout + done.stderr)
        return Turn(float(speed), translations)


@dataclass(frozen=True)
class BareSettings:
    """How CTranslate2 is called, as far as a user would try by hand."""

    compute_type: str
    workers: int
    threads: int
    batch_size: int
    batch_type: str
    by_length: bool

    def __str__(self):
        order = "by length" if self.by_length else "as they come"
        return (
            f"{self.compute_type}, {self.workers} × {self.threads} threads, batches of "
            f"{self.batch_size} {self.batch_type}, {order}"
        )


class Bare:
    """CTranslate2 without anything around it."""

    def __init__(self, args, model, text, folder):
        self._beam, self._codec = args.beam, model.codec()
        self._exported = folder / "exported"
        convert(model, self._exported)
        encoded = self._codec.encode_batch([line.strip() for line in text.lines])
        self._sentences = {
            number: pieces[:MAX_SOURCE_PIECES] for number, pieces in enumerate(encoded) if pieces
        }
        self._lines = len(text.lines)
        self._best = self._search(args)

    def turn(self):
        """A ``Turn`` with the best settings."""
        seconds, found = self._time(self._load(self._best), self._best, list(self._sentences))
        translations = {number: self._codec.decode(pieces) for number, pieces in found.items()}
        translations |= dict.fromkeys(range(self._lines) - self._sentences.keys(), "")
        return Turn(self._lines / seconds, translations)

    def __str__(self):
        return str(self._best)

    def _search(self, args):
        """The fastest ``BareSettings``: all on a part of the text, the best again on more."""
        numbers = list(self._sentences)
        few = evenly(numbers, args.grid_lines)
        speeds = {}
        supported = ctranslate2.get_supported_compute_types("cpu")
        for compute_type, workers in itertools.product(COMPUTE, halvings(args.threads)):
            if compute_type not in supported:
                continue
            how = compute_type, workers, args.threads // workers
            translator = self._load(BareSettings(*how, 32, "examples", False))
            for batch, by_length in itertools.product(BATCHES, (False, True)):
                settings = BareSettings(*how, *batch, by_length)
                speeds[settings] = len(few) / self._time(translator, settings, few)[0]
                tell(f"ctranslate2, {settings}: {speeds[settings]:,.1f} sentences/s")
        best = sorted(speeds, key=speeds.get)[-FINALISTS:]
        more = evenly(numbers, 3 * args.grid_lines)
        return min(best, key=lambda how: self._time(self._load(how), how, more)[0])

    def _load(self, settings):
        return ctranslate2.Translator(
            str(self._exported), device="cpu", compute_type=settings.compute_type,
            inter_threads=settings.workers, intra_threads=settings.threads,
        )  # fmt: skip

    def _time(self, translator, settings, numbers):
        """Seconds to translate these lines, and {number: pieces}."""
        groups = list(self._groups(numbers, settings.by_length))
        # the first batch of a translator is slow; that may not count
        self._translate(translator, settings, groups[0][0], groups[0][1][:32])
        started = time.perf_counter()
        results = [(numbers, self._translate(translator, settings, limit, numbers))
                   for limit, numbers in groups]  # fmt: skip
        seconds = time.perf_counter() - started
        return seconds, {
            number: result.hypotheses[0]
            for numbers, translated in results
            for number, result in zip(numbers, translated, strict=True)
        }

    def _translate(self, translator, settings, limit, numbers):
        return list(
            translator.translate_iterable(
                map(self._sentences.__getitem__, numbers), beam_size=self._beam,
                max_batch_size=settings.batch_size, batch_type=settings.batch_type,
                max_input_length=0, max_decoding_length=limit,
            )
        )  # fmt: skip

    def _groups(self, numbers, by_length):
        """(length limit as dad-generate sets it, numbers of lines) of each call."""

        def length(number):
            return len(self._sentences[number])

        positions = positions_of(self._exported)["target"]
        limit = Decoding(self._beam).length_limit
        if not by_length:
            yield limit(max(map(length, numbers)), positions), numbers
            return
        ordered = sorted(numbers, key=length, reverse=True)
        for _, group in itertools.groupby(ordered, lambda number: length_class(length(number))):
            group = list(group)
            yield limit(length(group[0]), positions), group


class Dad:
    """dad-generate as users call it; ``settings`` are those of ``generate``."""

    def __init__(self, args, model, text, **settings):
        self._text, self._model, self._beam = text, model, args.beam
        self.settings = {"shard_lines": args.shard_lines, "calibration": "off", **settings}
        self.whole_seconds = []

    def turn(self):
        """A ``Turn``; ``settings`` are those that were used, from then on."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            started = time.perf_counter()
            record = generate(
                [self._model.path], self._text.source, out, beam=self._beam, device="cpu",
                backend="ctranslate2", **self.settings
            )  # fmt: skip
            self.whole_seconds.append(time.perf_counter() - started)
            names = ("compute_type", "batch_tokens", "workers", "threads")
            chosen = {name: record["settings"][name] for name in names}
            self.settings |= {"calibration": "off", **chosen}
            seconds = record["counts"]["decode_seconds"]
            return Turn(len(self._text.lines) / seconds, dict(enumerate(read_lines(out))))

    def __str__(self):
        return "{compute_type}, {workers} × {threads} threads, batches of {batch_tokens} pieces" \
            .format(**self.settings)  # fmt: skip


class Calibrated(Dad):
    """dad-generate that chooses for itself."""

    def __init__(self, args, model, text):
        super().__init__(args, model, text, calibration="all")


class OnRay(Dad):
    """dad-generate on a Ray cluster."""

    def __init__(self, args, model, text, **settings):
        super().__init__(args, model, text, engine="ray", address=args.address, **settings)

    def turn(self):
        with mock.patch.object(ray_engine, "RayEngine", StartedEngine):
            return super().turn()

    def __str__(self):
        return f"{super().__str__()}, Ray"


class StartedEngine(ray_engine.RayEngine):
    """The engine with all its workers loaded, not only the first, before it is asked to decode."""

    def __init__(self, parcel, **where):
        super().__init__(parcel, **where)
        while self._loading:
            self._note_ready(SECONDS_TO_START)


SIDES = {
    "fairseq": Fairseq, "ctranslate2": Bare, "dad": Calibrated, "dad1": Dad, "dad2": Dad,
    "ray": OnRay,
}  # fmt: skip


def main():
    parser = _parser()
    args = parser.parse_args()
    names = [name for name in SIDES if name in args.sides.split(",")]
    unknown = set(args.sides.split(",")) - set(SIDES)
    if unknown:
        parser.error(f"--sides are some of {','.join(SIDES)}, not {','.join(sorted(unknown))}")
    if bool(args.source) != bool(args.references) or not (args.source or args.data):
        parser.error("name the text with --data, or with --source and --references")
    if args.threads > usable_cores() or args.threads < 2 and {"dad2", "ray"} & set(names):
        parser.error(
            f"--threads {args.threads}: {usable_cores()} cores are usable here, and dad2 and ray "
            f"need 2"
        )
    model = open_model(args.model)
    if model.exported:
        parser.error(f"{args.model} is exported already; name the MODEL folder, with model.pt")
    if hasattr(os, "sched_setaffinity"):  # for all sides, as processes inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        text = make_text(args, model.vocabulary, folder)
        print(
            f"{len(text.lines):,} sentences, beam {args.beam}, {args.threads} cores, "
            f"load average {os.getloadavg()[0]:.2f} before, OMP_WAIT_POLICY="
            f"{os.environ.get('OMP_WAIT_POLICY', 'unset')}; "
            + ", ".join(f"{name} {version}" for name, version in package_versions().items()),
            flush=True,
        )
        sides, turns = {}, {name: [] for name in names}
        for number in range(1, args.rounds + 1):
            for name in names:
                if name not in sides:
                    sides[name] = make_side(name, args, model, text, folder, sides)
                turn = sides[name].turn()
                tell(f"round {number}, {name}: {turn.sentences_per_second:,.1f} sentences/s")
                if number > 1:  # those of one round are enough
                    turns[name][-1].translations = {}
                turns[name].append(turn)
        report(sides, turns, text, model.vocabulary.target_lang)


def make_side(name, args, model, text, folder, sides):
    """The object that takes turns under this name."""
    if name in ("fairseq", "ctranslate2"):
        return SIDES[name](args, model, text, folder)
    if name == "dad":
        return Calibrated(args, model, text)
    chosen = sides["dad"].settings if "dad" in sides else {}
    fixed = {
        "compute_type": args.compute_type or chosen.get("compute_type"),
        "batch_tokens": args.batch_tokens or chosen.get("batch_tokens"),
    }
    return SIDES[name](args, model, text, workers=1 if name == "dad1" else 2, threads=1, **fixed)


def report(sides, turns, text, target_lang):
    """Print the table: speed, BLEU and settings of each side, and the ratios."""
    numbers = text.part if "fairseq" in sides else range(len(text.lines))
    references = [text.references[number] for number in numbers]
    bleu, scores = BLEU(trg_lang=target_lang), {}
    rounds = len(next(iter(turns.values())))
    print(f"\nmedian of {rounds} rounds\n{'side':<12} {'sentences/s':>11}  {'BLEU':>6}  settings")
    for name, side in sides.items():
        output = [turns[name][-1].translations[number] for number in numbers]
        scores[name] = bleu.corpus_score(output, [references]).score
        speed = statistics.median(turn.sentences_per_second for turn in turns[name])
        print(f"{name:<12} {speed:11,.1f}  {scores[name]:6.2f}  {side}")
    print()
    for ours, theirs in RATIOS:
        if {ours, theirs} <= sides.keys():
            ratios = [
                one.sentences_per_second / other.sentences_per_second
                for one, other in zip(turns[ours], turns[theirs], strict=True)
            ]
            each = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{ours} : {theirs:<14} {statistics.median(ratios):6.2f}   (rounds: {each})")
    if "dad" in sides:
        first, *later = sides["dad"].whole_seconds
        print(f"dad, the whole call: {first:.1f} s with its calibration"
              + (f", {statistics.median(later):.1f} s without" if later else ""))  # fmt: skip
    least, most = min(scores, key=scores.get), max(scores, key=scores.get)
    if scores[most] - scores[least] > BLEU_APART:
        print(
            f"BLEU of {least} and {most} are {scores[most] - scores[least]:.2f} apart, more than "
            f"{BLEU_APART}: look at their translations before their speed"
        )
    print(f"BLEU on {len(references):,} sentences: {bleu.get_signature()}")


def make_text(args, vocabulary, folder):
    """The ``Text``, repeated as often as --repeat says."""
    paths = args.source, args.references
    if not args.source:
        languages = vocabulary.source_lang, vocabulary.target_lang
        paths = [find_text(args.data, "test", lang) for lang in languages]
    _, lines, references = map(list, zip(*read_bitext(*paths), strict=True))
    lines, references = lines * args.repeat, references * args.repeat
    write_lines(folder / "source", lines)
    part = range(len(lines))
    if args.fairseq_lines:
        part = evenly(part, args.fairseq_lines)
    return Text(folder / "source", lines, references, part)


def evenly(numbers, most):
    """At most so many of the numbers, evenly spread."""
    return numbers[:: max(1, -(-len(numbers) // most))]


def halvings(number):
    """The number, its half, and so on down to 1."""
    while number:
        yield number
        number //= 2


def write_lines(path, lines):
    with write_whole(path) as out:
        out.writelines(line + "\n" for line in lines)


def tell(line):
    print(line, file=sys.stderr, flush=True)


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="MODEL folder")
    parser.add_argument("--data", metavar="DIR", help="prepared folder; its test set is decoded")
    parser.add_argument("--source", metavar="FILE", help="text to decode instead")
    parser.add_argument("--references", metavar="FILE", help="its translations, for BLEU")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="decode the text so many times over: a calibration needs a "
                        "minute's work")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--beam", type=int, default=5, metavar="N")
    parser.add_argument("--sides", default="fairseq,ctranslate2,dad", metavar="A,B,...",
                        help=f"some of {','.join(SIDES)}; %(default)s by default")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="cores for each side")
    parser.add_argument("--max-tokens", type=int, nargs="+", default=[4000], metavar="N",
                        help="for fairseq-generate; of several the fastest is kept")  # fmt: skip
    parser.add_argument("--fairseq-lines", type=int, metavar="N",
                        help="most lines for fairseq-generate, evenly spread")  # fmt: skip
    parser.add_argument("--grid-lines", type=int, default=2000, metavar="N",
                        help="on which CTranslate2's settings are tried")  # fmt: skip
    parser.add_argument("--compute-type", choices=COMPUTE_TYPES, help="of dad1, dad2 and ray")
    parser.add_argument("--batch-tokens", type=int, metavar="N", help="of dad1, dad2 and ray")
    parser.add_argument("--shard-lines", type=int, default=SHARD_LINES, metavar="N",
                        help="of dad-generate")  # fmt: skip
    parser.add_argument("--address", default="local", metavar="HOST:PORT",
                        help="of the Ray cluster; local: one is started here")  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
