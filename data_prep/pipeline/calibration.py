"""Measure how fast this machine trains and decodes, so that a plan can say how long a run takes.

Usage: dad-calibrate [--sizes NAME,NAME] [--out FILE]

Trains a few models of different sizes for some seconds each on made-up text, with fairseq-train as
the recipes do, and decodes with what came of it. Two to three minutes on two CPU cores. Do it
while nothing else runs: what else is busy is measured too.

The measurements go to calibration.json in the cache ($DAD_CACHE, or
~/.cache/distill-adapt-distill), which belongs to no run. `dad-plan`, that is `--plan` of the
recipes, reads them there. It works out sizes that were not measured from those that were, and it
never uses, without saying so, what was measured on another machine.

Example:
  dad-calibrate
  bash recipes/de-en/run.sh --general my/general --domain medical=my/medical --work runs/m --plan
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep import command
from data_prep.manifest import commit, machine, package_versions, read_json, write_json
from data_prep.model_sizes import PREFIX, SIZES
from data_prep.pipeline.rates import FORMAT, arithmetic, read_rates
from data_prep.training_log import read_entries

PROG = "dad-calibrate"
FILE = "calibration.json"
DEFAULT_SIZES = ("miniature", "small", "large")
VOCABULARY = 8000  # pieces
PAIRS = 20_000  # of made-up text
MAX_TOKENS = {"cpu": 1500, "cuda": 4096}  # in a batch
PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "fp16", "bf16")}
DECODING = {  # backend, compute type, beam
    "cpu": (("ctranslate2", "int8", 1), ("ctranslate2", "int8", 5), ("ctranslate2", "float32", 5),
            ("fairseq", "float32", 1)),
    "cuda": (("ctranslate2", "float16", 1), ("ctranslate2", "float16", 5),
             ("fairseq", "float16", 1)),
}  # fmt: skip
FIRST = 2  # updates that are not counted: memory is still being found
FEWEST = 3  # updates to measure
LONGEST = 60  # seconds; what is too slow for that is not tried for longer
SET_UP = 3  # seconds that fairseq counts as training and that are none
LINES = {"ctranslate2": 240, "fairseq": 80}  # to decode: enough that every worker has batches
WORDS = 8  # of a line; a model that has learnt nothing writes twice as much
PLUGINS = Path(__file__).resolve().parents[2] / "fairseq_plugins"
SYLLABLES = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "en", "ir")]


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, PROG)
    parser.add_argument(
        "--sizes", default=",".join(DEFAULT_SIZES), metavar="LIST",
        help="sizes to measure, two at least; others are worked out from them",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=8,
                        help="about how long each size is trained")  # fmt: skip
    parser.add_argument("--vocabulary-size", type=int, default=VOCABULARY, metavar="N",
                        help="pieces of the made-up vocabulary")  # fmt: skip
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N",
                        help="sentence pairs of made-up text")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="file to write, in place of the cache's")
    args = parser.parse_args(argv)
    sizes = args.sizes.split(",")
    for size in sizes:
        if size not in SIZES:
            raise ValueError(f"--sizes: there is no size {size!r}; there are {', '.join(SIZES)}")
    out = Path(args.out) if args.out else place()
    record = calibrate(sizes, args.seconds, args.vocabulary_size, args.pairs)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, record)
    print(in_words(out))


def place():
    """Where this machine's calibration lies."""
    cache = os.environ.get("DAD_CACHE") or Path("~/.cache/distill-adapt-distill").expanduser()
    return Path(cache) / FILE


def calibrate(sizes, seconds, vocabulary, pairs):
    """The measurements of this machine, a dictionary as in the file.

    Args:
        sizes: names of architectures.
        seconds: about how long to train each.
        vocabulary: pieces of the vocabulary to learn from made-up text.
        pairs: sentence pairs of that text.

    Raises:
        ValueError: a command failed; says what it printed last.
    """
    from tqdm import tqdm

    started = time.monotonic()
    about = machine()
    device = "cuda" if about["gpus"] else "cpu"
    record = {
        "format": FORMAT, "machine": about, "device": device, "versions": package_versions(),
        "commit": commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load_before": os.getloadavg()[0], "text": {}, "training": [], "decoding": [],
    }  # fmt: skip
    steps = 1 + len(sizes) * (len(PRECISIONS[device]) + len(DECODING[device])) + 1
    with tempfile.TemporaryDirectory(prefix="dad-calibrate-") as name, \
            tqdm(total=steps, desc="calibrating", **command.bar_settings()) as bar:  # fmt: skip
        folder = Path(name)
        text_seconds = _text(folder, vocabulary, pairs)
        pieces = sum(1 for _ in open(folder / "prepared" / "dict.en.txt", encoding="utf-8")) + 4
        bar.update()
        starts = []
        for size in sizes:
            for precision in PRECISIONS[device]:
                bar.set_postfix_str(f"training {size}, {precision}")
                found, start = _train(folder, size, precision, device, seconds)
                record["training"].append({"size": size, "vocabulary": pieces, **found})
                starts.append(start)
                bar.update()
            model = _keep_weights(folder, size)
            for backend, compute_type, beam in DECODING[device]:
                bar.set_postfix_str(f"decoding with {size}, {backend} {compute_type} beam {beam}")
                rate = _decode(folder, model, size, backend, compute_type, beam)
                record["decoding"].append({
                    "size": size, "vocabulary": pieces, "backend": backend,
                    "compute_type": compute_type, "beam": beam, "tokens_per_second": rate,
                })  # fmt: skip
                bar.update()
        start = statistics.median(starts)
        record["start_seconds"] = round(start, 1)
        # fairseq-preprocess, which encodes, takes as long to start as fairseq-train
        text_seconds["encode"] = max(text_seconds["encode"] - start, text_seconds["encode"] / 5)
        record["text"] = {step: round(pairs / each) for step, each in text_seconds.items()}
        record["sharing"] = _sharing(folder, sizes, record, device, seconds)
        bar.update()
    record["seconds"] = round(time.monotonic() - started, 1)
    return record


def _text(folder, vocabulary, pairs):
    """Make up text, clean it, learn a vocabulary, encode; {step: seconds}."""
    chance = random.Random(1)
    words = ["".join(chance.choices(SYLLABLES, k=chance.randint(2, 5)))
             for _ in range(3 * vocabulary)]  # fmt: skip
    text = folder / "text"
    text.mkdir()
    for split, number in {"train": pairs, "dev": 50, "test": 50}.items():
        # both sides of a pair are equally long, as a rule: otherwise batches are full of padding
        lengths = [chance.randint(6, 20) for _ in range(number)]
        for lang in ("de", "en"):
            with open(text / f"{split}.{lang}", "w", encoding="utf-8") as out:
                for length in lengths:
                    # few words are frequent and many are rare, as in real text
                    line = [words[int(len(words) * chance.random() ** 3)] for _ in range(length)]
                    out.write(" ".join(line) + "\n")
    langs = ["--source-lang", "de", "--target-lang", "en"]
    python = [sys.executable, "-m"]
    return {
        "clean": _call([*python, "data_prep.clean", "--in", text, *langs,
                        "--out", folder / "clean"])[0],
        "vocabulary": _call([*python, "data_prep.vocabulary", "--train", text, *langs,
                             "--size", vocabulary, "--out", folder / "vocabulary"])[0],
        "encode": _call([*python, "data_prep.binarise", "--train", text,
                         "--vocabulary", folder / "vocabulary", "--out", folder / "prepared"])[0],
        "overlap": _call([*python, "data_prep.overlap", *langs, "--out", folder / "overlap",
                          text])[0],
    }  # fmt: skip

def _train(folder, size, precision, device, seconds, threads=None):
    """(what was measured of training a size, seconds that the command took besides)."""
    save = folder / f"train-{size}-{precision}-{threads or 'all'}"  # never one to go on in
    words = [
        "fairseq-train", folder / "prepared", "--user-dir", PLUGINS,
        "--task", "sequence_distillation", "--save-dir", save, "--arch", PREFIX + size,
        "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
        "--optimizer", "adam", "--clip-norm", "1.0", "--lr", "0.0001",
        "--max-tokens", MAX_TOKENS[device], "--max-update", 100_000,
        "--stop-time-hours", (seconds + SET_UP) / 3600, "--valid-beam", 0, "--disable-validation",
        "--num-workers", 0, "--seed", 1, "--log-format", "json", "--log-interval", 1,
        "--no-epoch-checkpoints", "--dropout", "0.1",
    ]  # fmt: skip
    words += [] if precision == "fp32" else [f"--{precision}"]
    words += [] if device == "cuda" else ["--cpu"]
    took, peak, output = _call(words, threads)
    entries = [entry for kind, entry in read_entries(output) if kind == "train_inner"]
    if len(entries) < FIRST + FEWEST and seconds < LONGEST:  # a large model, a slow machine
        shutil.rmtree(save)
        return _train(folder, size, precision, device, 3 * seconds, threads)
    counted = entries[FIRST:]
    # speed of an update is tokens a second; their harmonic mean is that of all updates
    spent = sum(entry["wpb"] / entry["wps"] for entry in counted if entry.get("wps"))
    tokens = sum(entry["wpb"] for entry in counted if entry.get("wps"))
    if not spent:
        raise ValueError(f"{size} made too few updates in {seconds:g} s; give --seconds more")
    if free := [entry["gb_free"] for entry in counted if "gb_free" in entry]:
        peak = (_gpu_gib() - min(free)) * 2**30
    measured = {
        "precision": precision, "max_tokens": MAX_TOKENS[device], "updates": len(counted),
        "tokens_per_second": round(tokens / spent, 1), "peak_memory_bytes": round(peak),
    }  # fmt: skip
    return measured, max(0.0, took - entries[-1]["wall"])


def _gpu_gib():
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(listed.stdout.split("\n")[0]) / 1024


def _keep_weights(folder, size):
    model = folder / f"model-{size}"
    trained = folder / f"train-{size}-fp32-all" / "checkpoint_last.pt"
    _call(["dad-keep-weights", "--checkpoint", trained, "--vocabulary", folder / "prepared",
           "--out", model])  # fmt: skip
    return model


def _decode(folder, model, size, backend, compute_type, beam):
    """Target tokens a second of a model that is hardly trained, on made-up text."""
    source = folder / f"source-{size}-{backend}-{compute_type}-{beam}"
    with open(folder / "text" / "train.de", encoding="utf-8") as text:
        lines = [" ".join(next(text).split()[:WORDS]) + "\n" for _ in range(LINES[backend])]
    source.write_text("".join(lines), encoding="utf-8")
    out = source.with_name(source.name + ".out")
    _call(["dad-generate", "--model", model, "--backend", backend, "--compute-type", compute_type,
           "--beam", beam, "--source", source, "--out", out])  # fmt: skip
    counts = read_json(f"{out}.manifest.json")["counts"]
    return round(counts["tokens"] / counts["decode_seconds"], 1)


def _sharing(folder, sizes, record, device, seconds):
    """Speed of training on half of the cores, as a share of that on all; 0.5 to 1."""
    cores = record["machine"]["cores"]
    if device == "cuda" or cores < 2:
        return 0.5
    size = min(sizes, key=lambda size: arithmetic(size, VOCABULARY))
    half = _train(folder, size, "fp32", device, seconds / 2, threads=cores // 2)[0]
    whole = next(found for found in record["training"] if found["size"] == size)
    share = half["tokens_per_second"] / whole["tokens_per_second"]
    return round(min(1.0, max(0.5, share)), 2)


def _call(words, threads=None):
    """(seconds, peak memory in bytes, lines of output) of a command."""
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    words = list(map(str, words))
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output,
                                     stderr=output, env=environment)  # fmt: skip
        except FileNotFoundError:
            raise ValueError(
                f"the command {words[0]!r} is not on PATH; source recipes/bootstrap.sh"
            ) from None
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").split("\n")
    if child.returncode:
        raise ValueError(f"{words[0]} failed: " + " ".join(filter(None, lines[-4:])))
    return seconds, usage.ru_maxrss * 1024, lines


def in_words(path):
    """What a calibration says, a few lines for people."""
    record = read_json(path)
    lines = [f"{path}, in {record['seconds']:.0f} s", ""]
    for found in record["training"]:
        lines.append(
            f"  training {found['size']:<18} {found['precision']}"
            f" {found['tokens_per_second']:>10,.0f} target tokens/s"
            f"   {found['peak_memory_bytes'] / 1e9:.1f} GB"
        )
    for found in record["decoding"]:
        how = f"{found['backend']} {found['compute_type']} beam {found['beam']}"
        lines.append(
            f"  decoding {found['size']:<18} {how:<26}"
            f" {found['tokens_per_second']:>10,.0f} tokens/s"
        )
    rates = read_rates(path, "", 1)
    errors = [speed.error() for speed in (*rates.training.values(), *rates.decoding.values())]
    lines += ["", f"Sizes that were not measured are worked out from these, within a factor of "
              f"{max(errors):.2f}."]  # fmt: skip
    if was_busy(record):
        lines.append("The machine was busy with other work: alone it is faster than this.")
    return "\n".join(lines)


def was_busy(record):
    """Whether other work ran on the machine when it was measured."""
    return record["load_before"] > 0.5 * record["machine"]["cores"]


if __name__ == "__main__":
    main()
