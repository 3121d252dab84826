"""What shipping a student saves: int8 in CTranslate2 against its teacher in fairseq-generate.

Printed are the ratios of sentences per second and of size, and the difference in BLEU; both sides
in one run, in turns, greedy and with beam 5. What is counted:

  teacher   fairseq-generate on the binarised test set: its own count of seconds, which is the
            search alone. Starting, loading, reading and printing are left out. Of several
            --max-tokens (12000 is what fairseq takes when nothing is said) the fastest in the
            first round is kept, and the ratio is to that.
  student   the backend of dad-generate, exported to int8, with a worker of one thread for each
            core and batches of 1,024 pieces: the search alone, batches made included, over the
            same sentences again and again for --seconds, four times each before it waits, so
            that no worker is idle for want of batches.
  size      teacher: model.pt; student: model.bin and what CTranslate2 reads beside it.

--run WORK compares the teacher and a student of a finished chain, on the domain's test set. BLEU
is sacreBLEU's on detokenised text: of fairseq-generate's output, and of dad-generate's.

--untrained compares shapes: a teacher dad_large (6 + 6 layers of 512, feed-forward 2,048) with
students dad_tiny and dad_small, over a vocabulary of 30,000 pieces that is learnt from --text. The
weights are random, which is fine for speed as long as both sides write equally much; random
models do not end by themselves. So the source is sentences of the test set with exactly --length
pieces, and both sides are made to take as many steps of the decoder for each of them:
fairseq-generate --min-len L --max-len-a 0 --max-len-b L (L pieces, then the end, which is a
step, too), CTranslate2 with min_decoding_length = max_decoding_length = L + 1. How many pieces
came out is checked. No length differs, so no side loses time on padding.

A student with a vocabulary map computes, of the last layer, only the rows of pieces that may
translate a piece of its batch: the 100 most frequent ones and, for each source piece, the 20 that
stand most often beside it in --text (Dice coefficient). CTranslate2 calls this use_vmap.

Examples:
  python tests/benchmarks/shipping.py --run runs/quickstart
  python tests/benchmarks/shipping.py --untrained --text de-en/general \\
      --source-lang de --target-lang en
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf
from sacrebleu.metrics import BLEU

import fairseq_plugins
from data_prep.binarise import binarise, find_command
from data_prep.files import find_text, read_bitext, read_lines, write_whole
from data_prep.manifest import package_versions, processor, read_manifest
from data_prep.processes import usable_cores
from data_prep.vocabulary import make_vocabulary, read_vocabulary
from fairseq_plugins.export.conversion import convert
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.generation.ctranslate2_backend import (
    DEFAULT_BATCH_TOKENS,
    CTranslate2Backend,
)
from fairseq_plugins.generation.decoding import Decoding
from fairseq_plugins.generation.fairseq_backend import quiet
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.models import open_model

PIECES = 30_000
SAMPLE_LINES = 400_000  # that the vocabulary is learnt from
TEACHER, STUDENTS = "large", ("tiny", "small")
WANTED = {"speed": 20, "size": 10}  # for tiny
BEAMS = (1, 5)
MAX_TOKENS = (12_000, 1_000)
AT_ONCE = 4  # times the sentences are given to a student before it waits
VMAP_PAIRS = 20_000
FREQUENT, CANDIDATES = 100, 20


class Turn(NamedTuple):
    """``pieces`` of a translation on average, the end left out; ``texts`` by line."""

    sentences_per_second: float
    pieces: float
    texts: list


class Teacher:
    """fairseq-generate on the test set of a PREPARED folder.

    Args:
        model: ``ModelFolder``.
        data: PREPARED folder with the binarised test set.
        max_tokens: list of sizes of a batch to try.
        length: pieces that every translation is made to have, or None.
    """

    def __init__(self, model, data, max_tokens, length=None):
        self._model, self._data, self._length = model, data, length
        self.max_tokens = {beam: list(max_tokens) for beam in BEAMS}

    def turn(self, beam):
        """A ``Turn``; in the first, all batch sizes are tried and the fastest is kept."""
        turns = {size: self._decode(beam, size) for size in self.max_tokens[beam]}
        for size, turn in turns.items():
            tell(f"  teacher, beam {beam}, --max-tokens {size}: "
                 f"{turn.sentences_per_second:,.2f} sentences/s")  # fmt: skip
        best = max(turns, key=lambda size: turns[size].sentences_per_second)
        self.max_tokens[beam] = [best]
        return turns[best]

    def _decode(self, beam, max_tokens):
        limits = ["--max-len-a", "2", "--max-len-b", "20"]
        if self._length:
            limits = ["--min-len", self._length, "--max-len-a", "0", "--max-len-b", self._length]
        command = [
            find_command("fairseq-generate"), self._data,
            "--user-dir", fairseq_plugins.__path__[0], "--task", "sequence_distillation",
            "--path", self._model.weights, "--gen-subset", "test", "--cpu",
            "--beam", beam, "--max-tokens", max_tokens, *limits,
            "--required-batch-size-multiple", "1",  # otherwise it drops the last sentences
        ]  # fmt: skip
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(usable_cores())},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"fairseq-generate failed:\n{done.stderr[-2000:]}")
        found = {}
        for line in done.stdout.split("\n"):
            if line.startswith("H-"):
                number, _, pieces = line.split("\t")
                found[int(number[2:])] = pieces.split()
        (speed,) = re.findall(r"\(([\d.]+) sentences/s", done.stdout + done.stderr)
        decode = self._model.codec().decode
        pieces = [found[number] for number in range(len(found))]
        return Turn(float(speed), mean_length(pieces), [decode(line) for line in pieces])


class Student:
    """An exported model.

    Args:
        exported: EXPORTED folder.
        sentences: list of piece lists.
        seconds: a turn takes, at least.
        options: more of CTranslate2's, which win over the backend's.
    """

    def __init__(self, exported, sentences, seconds, **options):
        self._sentences, self._seconds = AT_ONCE * sentences, seconds
        self._decodings = {
            beam: Decoding(beam, batch_tokens=DEFAULT_BATCH_TOKENS["cpu"]) for beam in BEAMS
        }
        self._backend = WithOptions(exported, self._decodings[BEAMS[0]], options)

    def turn(self, beam):
        """A ``Turn`` without texts."""
        decoding = self._decodings[beam]
        session = self._backend.searching(decoding).session(seed=0)
        done, started = 0, time.perf_counter()
        while True:
            waits = [
                session.begin([self._sentences[index] for index in batch])
                for batch in decoding.batches(self._sentences)
            ]
            found = [hypotheses[0].pieces for wait in waits for hypotheses in wait()]
            done += len(found)
            seconds = time.perf_counter() - started
            if seconds >= self._seconds:
                return Turn(done / seconds, mean_length(found), [])


class WithOptions(CTranslate2Backend):
    """The backend, with other settings of CTranslate2's ``translate_batch``."""

    def __init__(self, exported, decoding, options):
        self._options = options
        super().__init__(
            exported, decoding, device="cpu", compute_type="default", workers=usable_cores(),
            threads=1,
        )  # fmt: skip

    def begin(self, translator, sentences):
        """As in the parent."""
        return super().begin(_Insisting(translator, self._options), sentences)


class _Insisting:
    def __init__(self, translator, options):
        self._translator, self._options = translator, options

    def translate_batch(self, *sentences, **settings):
        return self._translator.translate_batch(*sentences, **{**settings, **self._options})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, metavar="WORK", help="folder of a finished chain")
    what.add_argument("--untrained", action="store_true", help="compare shapes")
    parser.add_argument("--domain", metavar="NAME", help="with --run; the only one by default")
    parser.add_argument("--student", default="9", metavar="NUMBER", help="its configuration")
    parser.add_argument("--text", type=Path, metavar="DIR", help="with --untrained: train, test")
    parser.add_argument("--source-lang", metavar="LANG")
    parser.add_argument("--target-lang", metavar="LANG")
    parser.add_argument("--length", type=int, default=25, metavar="L", help="pieces of a sentence")
    parser.add_argument("--lines", type=int, default=100, metavar="N", help="sentences")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="a student's turn")
    args = parser.parse_args()
    if args.untrained and not (args.text and args.source_lang and args.target_lang):
        parser.error("--untrained needs --text, --source-lang and --target-lang")
    warnings.simplefilter("ignore")  # of what fairseq is made with
    print(
        f"{processor()}, {usable_cores()} cores, load average {os.getloadavg()[0]:.2f} before, "
        f"OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}\n"
        + ", ".join(f"{name} {version}" for name, version in package_versions().items()
                    if name in ("python", "ctranslate2", "fairseq-fixed", "torch", "sacrebleu")),
        flush=True,
    )  # fmt: skip
    if args.untrained:
        with tempfile.TemporaryDirectory() as folder:
            untrained(args, Path(folder))
    else:
        finished_run(args)


# -- a finished chain ----------------------------------------------------------------------


def finished_run(args):
    """Compare the adapted teacher of a chain with a student."""
    domain = args.domain or only(args.run.glob("corpora/*/prepared/test.*.bin"), args.run)
    teacher = open_model(args.run / "teacher" / domain)
    pattern = f"exported/student/*/{args.student}/{domain}"
    student, *others = sorted(args.run.glob(pattern)) or [None]
    if student is None:
        raise SystemExit(f"{args.run} has no {pattern}; is the chain finished?")
    if others:
        tell(f"taking {student}, not {', '.join(map(str, others))}")
    vocabulary = teacher.vocabulary
    text = args.run / "corpora" / domain / "text"
    source, references = (find_text(text, "test", lang) for lang in vocabulary.langs)
    lines, references = list(read_lines(source)), list(read_lines(references))
    pieces = teacher.codec().encode_batch([line.strip() for line in lines])
    sides = {
        "teacher": Teacher(teacher, args.run / "corpora" / domain / "prepared", MAX_TOKENS),
        "student": Student(student, [line for line in pieces if line], args.seconds),
    }
    turns = take_turns(sides, args.rounds)
    metric = BLEU(**{"zh": {"tokenize": "zh"}, "ja": {"tokenize": "ja-mecab"}}.get(
        vocabulary.target_lang, {}))  # fmt: skip
    print(f"\n{domain}: {len(lines):,} sentences; teacher {teacher.path}, student {student}")
    show(sides, turns)
    sizes = {"teacher": size_of(teacher.path), "student": size_of(student)}
    show_sizes(sizes)
    for beam in BEAMS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            generate([student], source, out, beam=beam, device="cpu", calibration="off")
            theirs = turns["teacher"][beam][-1].texts
            scores = [metric.corpus_score(found, [references]).score
                      for found in (theirs, list(read_lines(out)))]  # fmt: skip
        print(f"{named(beam):<8} BLEU of the teacher {scores[0]:.2f}, of the student "
              f"{scores[1]:.2f}: {scores[1] - scores[0]:+.2f}")  # fmt: skip
    print(f"BLEU: {metric.get_signature()}")


def only(paths, run):
    """Name of the one domain of a run, besides the general one."""
    found = sorted({path.parent.parent.name for path in paths} - {"general"})
    if len(found) != 1:
        raise SystemExit(f"{run} has the domains {', '.join(found) or 'none'}; name one: --domain")
    return found[0]


# -- untrained -----------------------------------------------------------------------------


def untrained(args, folder):
    """Compare random models of the papers' sizes."""
    started = time.monotonic()
    langs = args.source_lang, args.target_lang
    make_vocabulary(args.text, *langs, PIECES, folder / "vocabulary", sample_lines=SAMPLE_LINES)
    tell(f"vocabulary learnt after {time.monotonic() - started:.0f} s")
    vocabulary = read_vocabulary(folder / "vocabulary")
    models = {}
    for size in (TEACHER, *STUDENTS):
        make_model(folder / size, vocabulary, f"dad_{size}")
        models[size] = open_model(folder / size)
    chosen = of_length(args, vocabulary)
    tell(f"models made after {time.monotonic() - started:.0f} s")
    plain = folder / "plain"
    plain.mkdir()
    for lang, lines in zip(langs, zip(*chosen, strict=True), strict=True):
        with write_whole(plain / f"test.{lang}") as out:
            out.writelines(line + "\n" for line in lines)
    binarise(plain, folder / "vocabulary", folder / "prepared", splits=("test",))
    sentences = models[TEACHER].codec().encode_batch([line for line, _ in chosen])
    vmap = vocabulary_map(args.text, vocabulary)
    sides = {"teacher": Teacher(models[TEACHER], folder / "prepared", MAX_TOKENS, args.length)}
    sizes = {"teacher": size_of(folder / TEACHER)}
    steps = {"min_decoding_length": args.length + 1, "max_decoding_length": args.length + 1}
    for size in STUDENTS:
        exported = folder / f"exported-{size}"
        convert(models[size], exported, "int8")
        sizes[size] = size_of(exported)
        sides[size] = Student(exported, sentences, args.seconds, **steps)
        mapped = folder / f"exported-{size}-vmap"
        convert(models[size], mapped, "int8")
        with write_whole(mapped / "vmap.txt") as out:
            out.writelines(f"{piece}\t{' '.join(found)}\n" for piece, found in vmap.items())
        sizes[f"{size}, vmap"] = size_of(mapped)
        sides[f"{size}, vmap"] = Student(mapped, sentences, args.seconds, use_vmap=True, **steps)
    tell(f"measuring after {time.monotonic() - started:.0f} s")
    turns = take_turns(sides, args.rounds)
    for name, found in turns.items():
        wanted = args.length + (name != "teacher")
        for turn in (turn for of_beam in found.values() for turn in of_beam):
            if turn.pieces != wanted:
                raise SystemExit(f"{name} wrote {turn.pieces} pieces a sentence, not {wanted}")
    print(
        f"\nuntrained weights, {PIECES:,} pieces, {len(chosen):,} sentences of {args.length} "
        f"pieces, {args.length + 1} steps of the decoder for each"
    )
    print(f"vmap: {rows_left(vmap, sentences):,.0f} rows of the last layer for a batch, on average")
    show(sides, turns)
    show_sizes(sizes)
    print(f"wanted for tiny: {WANTED['speed']} times as fast, 1/{WANTED['size']} of the size; "
          f"all took {time.monotonic() - started:.0f} s")  # fmt: skip


def of_length(args, vocabulary):
    """--lines (source line, target line) whose source has exactly --length pieces."""
    encode = vocabulary.subwords(args.source_lang).encode_batch
    pairs = []
    for split in ("test", "dev", "train"):
        paths = (find_text(args.text, split, lang) for lang in (args.source_lang, args.target_lang))
        pairs += [(src, tgt) for _, src, tgt in read_bitext(*paths)]
        if len(pairs) > VMAP_PAIRS:
            break
    lengths = map(len, encode([src for src, _ in pairs]))
    found = [pair for pair, length in zip(pairs, lengths, strict=True) if length == args.length]
    if len(found) < args.lines:
        raise SystemExit(f"{args.text} has {len(found)} lines of {args.length} pieces among its "
                         f"first {len(pairs):,}; try another --length")  # fmt: skip
    return found[: args.lines]


def make_model(folder, vocabulary, arch):
    """MODEL folder of an architecture with the weights that fairseq starts with."""
    import torch

    words = [
        str(vocabulary.folder), "--task", "sequence_distillation", "--arch", arch, "--cpu",
        "--source-lang", vocabulary.source_lang, "--target-lang", vocabulary.target_lang,
    ]  # fmt: skip
    with quiet():
        args = options.parse_args_and_arch(options.get_training_parser(), words)
        cfg = convert_namespace_to_omegaconf(args)
        torch.manual_seed(1)
        network = tasks.setup_task(cfg.task).build_model(cfg.model)
    state = {
        "args": None, "criterion": None, "last_optimizer_state": None,
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "model": network.state_dict(),
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "num_updates": 0}],
        "task_state": {"vocabulary": vocabulary.files}, "extra_state": {},
    }  # fmt: skip
    checkpoint = folder.with_suffix(".pt")
    torch.save(state, checkpoint)
    keep_weights(checkpoint, vocabulary.folder, folder)
    checkpoint.unlink()


def vocabulary_map(text, vocabulary):
    """{source piece: target pieces that may translate it}, by the training text.

    Those of the key "" may translate any piece.
    """
    paths = [find_text(text, "train", lang) for lang in vocabulary.langs]
    pairs = [pair[1:] for pair, _ in zip(read_bitext(*paths), range(VMAP_PAIRS))]
    sides = [
        [set(line) for line in vocabulary.subwords(lang).encode_batch(lines)]
        for lang, lines in zip(vocabulary.langs, zip(*pairs, strict=True), strict=True)
    ]
    sources, targets = (Counter(piece for line in side for piece in line) for side in sides)
    beside = defaultdict(Counter)
    for src, tgt in zip(*sides, strict=True):
        for piece in src:
            beside[piece].update(tgt)
    candidates = {"": [piece for piece, _ in targets.most_common(FREQUENT)]}
    for piece, found in beside.items():
        dice = {other: 2 * n / (sources[piece] + targets[other]) for other, n in found.items()}
        candidates[piece] = sorted(dice, key=dice.get, reverse=True)[:CANDIDATES]
    return candidates


def rows_left(candidates, sentences):
    """Rows of the last layer that are computed for a batch, on average."""
    decoding = Decoding(batch_tokens=DEFAULT_BATCH_TOKENS["cpu"])
    return statistics.mean(
        len({
            other for index in batch for piece in ("", *sentences[index])
            for other in candidates.get(piece, ())
        })
        for batch in decoding.batches(sentences)
    )  # fmt: skip


# -- both ----------------------------------------------------------------------------------


def take_turns(sides, rounds):
    """{side: {beam: list of ``Turn``}}; the students have a turn before that does not count."""
    turns = {name: {beam: [] for beam in BEAMS} for name in sides}
    for name, side in sides.items():
        if name != "teacher":
            side.turn(BEAMS[0])
    for number in range(1, rounds + 1):
        for beam in BEAMS:
            for name, side in sides.items():
                turn = side.turn(beam)
                turns[name][beam].append(turn)
                tell(f"round {number}, {named(beam)}, {name}: "
                     f"{turn.sentences_per_second:,.2f} sentences/s")  # fmt: skip
    return turns


def show(sides, turns):
    """Print speeds, and how many times as fast as the teacher the others are."""
    teacher = sides["teacher"]
    for beam in BEAMS:
        own = [turn.sentences_per_second for turn in turns["teacher"][beam]]
        (size,) = teacher.max_tokens[beam]
        print(f"{named(beam):<8} {'teacher':<12} {statistics.median(own):>10,.2f} sentences/s "
              f"(--max-tokens {size}, {usable_cores()} threads)")  # fmt: skip
        for name in turns:
            if name == "teacher":
                continue
            speeds = [turn.sentences_per_second for turn in turns[name][beam]]
            ratios = [speed / theirs for speed, theirs in zip(speeds, own, strict=True)]
            print(f"{named(beam):<8} {name:<12} {statistics.median(speeds):>10,.2f} sentences/s: "
                  f"{statistics.median(ratios):.1f} times as fast (rounds: "
                  f"{', '.join(f'{ratio:.1f}' for ratio in ratios)})")  # fmt: skip


def show_sizes(sizes):
    """Print sizes, and how many times as large the teacher is."""
    size, parameters = sizes["teacher"]
    print(f"size     {'teacher':<12} {size / 1e6:>10,.2f} MB, {parameters / 1e6:,.2f} M parameters")
    for name, (own, its) in sizes.items():
        if name != "teacher":
            print(f"size     {name:<12} {own / 1e6:>10,.2f} MB, {its / 1e6:,.2f} M parameters: "
                  f"{size / own:.1f} times as small")  # fmt: skip


def size_of(folder):
    """(bytes of the model, parameters) of a MODEL or EXPORTED folder."""
    counts = read_manifest(folder)["counts"]
    vmap = folder / "vmap.txt"
    return counts["bytes"] + (vmap.stat().st_size if vmap.exists() else 0), counts["parameters"]


def mean_length(found):
    return statistics.mean(map(len, found))


def named(beam):
    return "greedy" if beam == 1 else f"beam {beam}"


def tell(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
