"""What a teacher costs in training: step time and memory, without one, online, from a cache.

Three sides train the same student on the same batches with the same seed, each in a process of
its own, and take turns of a few steps:

  plain    label_smoothed_cross_entropy
  online   word_distillation --teacher, the teacher run beside the student at each step
  cached   word_distillation --teacher-cache, its K largest log-probabilities from disk

A step is what fairseq-train does for an update: take a batch from the iterator of the task,
collate it, ``Trainer.train_step``. On a CPU a step is measured in processor time of one thread,
because it is not altered by what else the machine does, and in seconds; on a GPU in seconds.
Memory is the peak of the resident set (GPU: of the tensors), which on a CPU is libraries in part.

Text and weights are random: nothing here depends on what they say. Settings ``small`` are
recipes/defaults.sh's student and teacher with 30,000 pieces; ``quickstart`` are those of
recipes/quickstart.

VarunGumma/fairseq, a fork of the whole toolkit, is the one peer with word-level distillation. It
runs the teacher on each batch and takes the forward KL divergence over the whole vocabulary
beside the label-smoothed loss. That is the algorithm of side ``online`` (forward KL, no
--teacher-top-k), so its ratio to ``plain`` stands for the fork's without installing it. What this
cannot tell is how fast the fork's own code is; it has no cache to compare.

Example:
  python tests/benchmarks/distillation.py --settings quickstart small
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

# each side begins in a process of its own, so nothing large is imported here

SIDES = ("plain", "online", "cached")
WANTED = 1.15  # cached : plain
PAIRS = 400
MEAN_PIECES = 25


class Shape(NamedTuple):
    layers: int
    width: int
    ffn: int
    heads: int


class Settings(NamedTuple):
    """Sizes as in the recipes; ``max_tokens`` is of a batch."""

    student: Shape
    teacher: Shape
    pieces: int
    max_tokens: int


SETTINGS = {
    "quickstart": Settings(Shape(1, 96, 384, 4), Shape(2, 256, 1024, 4), 3_000, 1200),
    "small": Settings(Shape(3, 256, 1024, 8), Shape(6, 512, 2048, 8), 30_000, 1200),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each side")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="updates in a turn")
    parser.add_argument("--top-k", type=int, default=16, metavar="K", help="of the cache")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--flags", default="", metavar="FLAGS",
                        help="more of fairseq-train's, for both distilled sides")  # fmt: skip
    args = parser.parse_args()
    for name in args.settings:
        with tempfile.TemporaryDirectory() as folder:
            report(name, measure(SETTINGS[name], Path(folder), args), args)


def measure(settings, folder, args):
    """{side: ([(processor seconds, seconds) of a step in each turn], peak in bytes)}."""
    spawn = multiprocessing.get_context("spawn")
    maker = spawn.Process(target=prepare, args=(settings, folder, args.top_k, args.device))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("text, teacher or cache could not be made; see above")
    lines, turns = {}, {side: [] for side in SIDES}
    for side in SIDES:
        lines[side], far_end = spawn.Pipe()
        words = student_words(settings, folder, side, args)
        spawn.Process(target=take_turns, args=(words, far_end), daemon=True).start()
        far_end.close()
    for line in lines.values():
        line.send(2)  # the first steps make buffers
        line.recv()
    for number in range(args.rounds):
        for side in (SIDES, SIDES[::-1])[number % 2]:
            lines[side].send(args.steps)
            turns[side].append(tuple(spent / args.steps for spent in lines[side].recv()))
            print(f"round {number + 1}, {side}: {turns[side][-1][1] * 1000:,.0f} ms a step",
                  file=sys.stderr, flush=True)  # fmt: skip
    peaks = {}
    for side, line in lines.items():
        line.send(0)
        peaks[side] = line.recv()
    return {side: (turns[side], peaks[side]) for side in SIDES}


def report(name, found, args):
    """Print the table of one setting and the ratios."""
    timer = 0 if args.device == "cpu" else 1
    print(f"\n{name}: {SETTINGS[name]}\nmedian of {args.rounds} turns of {args.steps} steps, "
          f"{args.device}, load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'side':<8} {'processor ms':>12} {'ms':>8} {'peak MB':>8}")
    for side, (turns, peak) in found.items():
        processor, seconds = (statistics.median(column) * 1000 for column in zip(*turns))
        print(f"{side:<8} {processor:12,.0f} {seconds:8,.0f} {peak / 1e6:8,.0f}")
    for side in SIDES[1:]:
        ratios = [
            ours[timer] / plain[timer]
            for ours, plain in zip(found[side][0], found["plain"][0], strict=True)
        ]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        wanted = f", wanted: {WANTED} at most" if side == "cached" else ""
        print(f"{side} : plain {statistics.median(ratios):6.2f}   (turns: {each}){wanted}")
    print(flush=True)


# -- in the process of a side ----------------------------------------------------------------


def take_turns(words, line):
    """Train as many steps as the line says, again and again; answers what they took."""
    warnings.simplefilter("ignore")
    import torch
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.trainer import Trainer

    import fairseq_plugins  # noqa: F401  registers

    torch.set_num_threads(1)
    args = options.parse_args_and_arch(options.get_training_parser(), words)
    cfg = convert_namespace_to_omegaconf(args)
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    batches = endless(trainer)
    with contextlib.suppress(EOFError):
        while steps := line.recv():
            processor, seconds = time.process_time(), time.perf_counter()
            for _ in range(steps):
                trainer.train_step([next(batches)])
            if trainer.cuda:
                torch.cuda.synchronize()
            line.send((time.process_time() - processor, time.perf_counter() - seconds))
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line.send(torch.cuda.max_memory_allocated() if trainer.cuda else kibibytes * 1024)


def endless(trainer):
    """Batches of one epoch after another, the same for all sides."""
    epochs = trainer.get_train_iterator(epoch=1, combine=False)
    while True:
        yield from epochs.next_epoch_itr(shuffle=False)


# -- what they train on ----------------------------------------------------------------------


def common_words(shape, data):
    return [
        str(data), "--task", "sequence_distillation", "--source-lang", "de", "--target-lang", "en",
        "--arch", "transformer", "--share-all-embeddings",
        "--encoder-normalize-before", "--decoder-normalize-before",
        *(word for side in ("encoder", "decoder") for word in (
            f"--{side}-layers", shape.layers, f"--{side}-embed-dim", shape.width,
            f"--{side}-ffn-embed-dim", shape.ffn, f"--{side}-attention-heads", shape.heads,
        )),
        "--optimizer", "adam", "--lr", "0.0002", "--valid-beam", "0", "--num-workers", "0",
    ]  # fmt: skip


def student_words(settings, folder, side, args):
    """fairseq-train's command line of a side."""
    words = common_words(settings.student, folder / "data")
    words += ["--max-tokens", settings.max_tokens, "--dropout", "0.1", "--label-smoothing", "0.1"]
    words += ["--save-dir", folder / side, *(["--cpu"] if args.device == "cpu" else [])]
    if side == "plain":
        words += ["--criterion", "label_smoothed_cross_entropy"]
    else:
        words += ["--criterion", "word_distillation", *args.flags.split()]
    if side == "online":
        words += ["--teacher", folder / "teacher"]
    if side == "cached":
        words += ["--teacher-cache", folder / "cache"]
    return list(map(str, words))


def prepare(settings, folder, top_k, device):
    """A prepared folder of random text, a random teacher and its cache."""
    import torch

    from fairseq_plugins.teachers.cache import cache_teacher

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    make_data(folder / "data", settings.pieces)
    make_teacher(settings.teacher, folder)
    cache_teacher([folder / "teacher"], folder / "data", folder / "cache", top_k=top_k,
                  splits=["train"], device=device)  # fmt: skip


def make_data(data, pieces):
    import numpy as np
    import torch
    from fairseq.data import Dictionary
    from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

    from data_prep.files import sha256
    from data_prep.learn_subwords import learn_sentencepieces
    from data_prep.manifest import write_json
    from data_prep.vocabulary import VOCABULARY_FILE

    data.mkdir()
    # training only compares its bytes; the pieces of the text are numbers from the beginning
    words = [f"{a}{b}{c}" for a in "bdgkl" for b in "aeiou" for c in "mnprst"]
    (data / "subwords.model").write_bytes(learn_sentencepieces([" ".join(words)] * 20, 300))
    for lang in ("de", "en"):
        rows = (f"piece{number} 1\n" for number in range(pieces - 4))  # fairseq puts in 4
        (data / f"dict.{lang}.txt").write_text("".join(rows))
    names = ("subwords.model", "dict.de.txt", "dict.en.txt")
    write_json(data / VOCABULARY_FILE, {
        "kind": "sentencepiece", "source_lang": "de", "target_lang": "en",
        "files": {name: sha256(data / name) for name in names},
    })  # fmt: skip
    chance, eos = np.random.default_rng(1), Dictionary().eos()
    lengths = chance.poisson(MEAN_PIECES, PAIRS) + 1
    for lang in ("de", "en"):
        prefix = data / f"train.de-en.{lang}"
        builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
        for length in lengths + chance.integers(0, 5, PAIRS):
            drawn = chance.integers(4, pieces, length)
            builder.add_item(torch.tensor([*drawn.tolist(), eos]))
        builder.finalize(f"{prefix}.idx")


def make_teacher(shape, folder):
    import torch
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from omegaconf import OmegaConf

    import fairseq_plugins  # noqa: F401  registers
    from data_prep.vocabulary import read_vocabulary
    from fairseq_plugins.export.weights import keep_weights

    words = [*map(str, common_words(shape, folder / "data")), "--cpu"]
    args = options.parse_args_and_arch(options.get_training_parser(), words)
    cfg = convert_namespace_to_omegaconf(args)
    task = tasks.setup_task(cfg.task)
    state = {
        "args": None, "criterion": None, "last_optimizer_state": None,
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "model": task.build_model(cfg.model).state_dict(),
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "num_updates": 0}],
        "task_state": {"vocabulary": read_vocabulary(folder / "data").files},
        "extra_state": {},
    }  # fmt: skip
    torch.save(state, folder / "teacher.pt")
    keep_weights(folder / "teacher.pt", folder / "data", folder / "teacher")


if __name__ == "__main__":
    main()
