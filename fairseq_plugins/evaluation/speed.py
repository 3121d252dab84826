"""Measure what models cost on this machine: speed, latency, memory, size.

All models take turns in one run, round by round, in an order that rotates, so that a machine
that slows down slows them all. The median of the rounds counts, the range is recorded; a
first round on a few sentences warms up and does not count. Two ways to translate, each greedy
and with --beam:

  in batches   all sentences, --workers batches at once with --threads each; fairseq takes one
               batch at a time, with all these threads
  one by one   the next sentence when the last is done, with --threads: milliseconds of a
               sentence, of which half the sentences take at most p50, 90 % p90 and 99 % p99; and
               to the first token, the encoder included (greedy, since a beam has no first
               token before it has the last)

Tokens are pieces of the translation, its end included. Subwords and files are not timed.

MODEL is a folder made by dad-export, or a CTranslate2 folder made elsewhere, and is translated
by CTranslate2; or a folder with model.pt, which fairseq translates, so that a teacher in PyTorch
and its students as they are shipped stand in one table. Every model has a process of its own; all
are loaded at the same time. Its memory is the most that this process has held: Python, libraries,
model, sentences under way. What it held before the model was loaded is recorded, too.

--limit and --seconds choose how many sentences: the same for all models in batches, and fewer
one by one for a model that is slow. The numbers are printed and recorded.

Example:
  dad-speed --source test.de --out speed exported/teacher exported/student
  dad-speed --source test.de --out speed --workers 1 --threads 2 teacher/general exported/student
"""

import os
import re
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data_prep import command
from data_prep.files import read_lines, write_whole_folder
from data_prep.manifest import (
    commit,
    manifest_path,
    package_versions,
    processor,
    read_manifest,
    write_json,
    write_manifest,
)
from data_prep.processes import usable_cores
from data_prep.subwords import printable
from fairseq_plugins.evaluation.speed_process import Translator

PROG = "dad-speed"
RECORD = "speed.json"
MODES = ("beam", "greedy")
TASKS = (
    ("batched", "beam"), ("batched", "greedy"),
    ("one_by_one", "beam"), ("one_by_one", "greedy"), ("first_token", "greedy"),
)  # fmt: skip
PERCENTILES = (50, 90, 99)
UNITS = ("sentences_per_second", "tokens_per_second")
NAME_WIDTH = 30  # of a model in the tables, where a longer one takes several lines
MOST_PIECES = 250  # of a source line; a longer one is cut, as dad-generate does

DEFAULT_LIMIT, DEFAULT_SECONDS = 500, 60
MOST_ONE_BY_ONE = 100
# fewer make too few batches, or no percentiles, however slow a model is
FEWEST_BATCHED, FEWEST_ONE_BY_ONE = 100, 10
WARM_UP = {"batched": 32, "one_by_one": 3, "first_token": 3}  # sentences


def main():
    command.run(_main, PROG)


def _main():
    words = _parser()
    args = vars(words.parse_args())
    started, out, overwrite = time.monotonic(), args.pop("out"), args.pop("overwrite")
    models = find_all(args.pop("models"), args.pop("device"))
    with write_whole_folder(out, replace=overwrite) as part:
        record = measure(models, **args)
        write_json(part / RECORD, record)
        write_manifest(
            part,
            settings={name: args[name] for name in ("beam", "rounds", "limit", "seconds")}
            | {name: record[name] for name in ("device", "workers", "threads_per_worker")},
            inputs=[args["source"], *(model.folder.weights for model in models)],
            counts={"models": len(record["models"]), "sentences": record["sentences"]},
            seconds=time.monotonic() - started,
        )
    print(table(record))


def measure(
    models, source, *, beam=5, rounds=3, limit=DEFAULT_LIMIT, seconds=DEFAULT_SECONDS,
    workers=None, threads=None,
):  # fmt: skip
    """What ``speed.json`` holds, a dictionary.

    "models" has for each, by its path as given, backend, compute_type, parameters,
    embedding_parameters (None where no manifest tells), batch_tokens (source pieces of a batch),
    bytes, start_seconds (of the process, until its libraries are there), load_seconds,
    peak_memory_bytes, library_memory_bytes (before loading), and the modes "beam" and "greedy",
    see :func:`summary`.

    Args:
        models: list of :class:`Found`.
        source: UTF-8 text, one sentence a line.
        beam: hypotheses kept at each step; greedy decoding is measured as well.
        rounds: turns of each model, besides the first.
        limit: most sentences, spread evenly over short and long ones.
        seconds: about how long measuring may take, all models together.
        workers: batches at once; None: as many as the cores allow.
        threads: threads for each of them; None: 1.

    Raises:
        FileNotFoundError, ValueError: see the message.
    """
    _check_numbers(beam=beam, rounds=rounds, limit=limit, seconds=seconds, workers=workers,
                   threads=threads)  # fmt: skip
    workers, threads = many(models, workers, threads)
    lines = [printable(line).strip() for line in read_lines(source)]
    sentences = evenly(sorted(filter(None, lines), key=len), limit)
    if not sentences:
        raise ValueError(f"{source} has no sentences to translate")
    load_average = os.getloadavg()[0]
    translators = []
    try:
        for model in models:
            translators.append(model.load(beam, workers, threads))
            model.give(sentences, translators[-1])
        plan = Plan.of(translators, rounds, len(sentences), seconds)
        turns = take_turns(translators, plan, rounds)
        for translator in translators:
            translator.found["peak_memory_bytes"] = translator.ask("memory")
    finally:
        for translator in translators:
            translator.close()
    return {
        "source": str(source),
        "sentences": len(plan.batched),
        "lines": len(lines),
        "device": models[0].choice.device,
        "processor": processor(),
        "cores": usable_cores(),
        "workers": workers,
        "threads_per_worker": threads,
        "beam": beam,
        "rounds": rounds,
        "load_average": round(load_average, 2),
        "environment": {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY",)},
        "versions": package_versions(),
        "commit": commit(),
        "models": {
            model.name: {
                **model.described(translator.found),
                **{
                    mode: summary({task: turns[translator][task, mode] for task, its_mode in TASKS
                                   if its_mode == mode}, len(plan.batched))
                    for mode in MODES
                },
            }
            for model, translator in zip(models, translators, strict=True)
        },
    }  # fmt: skip


# -- models --------------------------------------------------------------------------------


class Found(NamedTuple):
    """A model folder that can be measured.

    ``folder`` is what ``open_model`` or ``open_converted`` returns, ``choice`` its ``Choice``.
    """

    name: str
    folder: object
    choice: object

    @property
    def source_lang(self):
        """Language code, or None where the folder does not say."""
        vocabulary = getattr(self.folder, "vocabulary", None)
        return vocabulary and vocabulary.source_lang

    def load(self, beam, workers, threads):
        """A ``Translator``."""
        folder, choice = self.folder, self.choice
        settings = {
            "backend": choice.name, "device": choice.device, "compute_type": choice.compute_type,
            "folder": str(folder.path), "workers": workers, "threads": threads,
            "beams": dict(zip(MODES, (beam, 1), strict=True)),
        }  # fmt: skip
        if folder.exported:
            settings |= {
                "positions": folder.positions, "target_prefix": folder.target_prefix,
                "suppressed": folder.suppressed,
            }  # fmt: skip
        return Translator(self.name, settings)

    def give(self, sentences, translator):
        """Tell the translator what there is to translate."""
        codec = self.folder.codec()
        longest = min(MOST_PIECES, translator.found["source_positions"] - 1)
        pieces = codec.encode_batch(sentences)
        translator.ask("take", sentences=[codec.cut(sentence, longest) for sentence in pieces])

    def described(self, found):
        """What is told of the model, apart from its speed."""
        counts = {}
        if manifest_path(self.folder.path).exists():
            counts = read_manifest(self.folder.path).get("counts", {})
        return {
            "backend": self.choice.name,
            "compute_type": COMPUTE_TYPES.get(found["compute_type"], found["compute_type"]),
            "parameters": counts.get("parameters"),
            "embedding_parameters": counts.get("embedding_parameters"),
            "batch_tokens": found["batch_tokens"],
            "bytes": sum(file.stat().st_size for file in model_files(self.folder)),
            "start_seconds": round(found["start_seconds"], 3),
            "load_seconds": round(found["load_seconds"], 4),
            "peak_memory_bytes": found["peak_memory_bytes"],
            "library_memory_bytes": found["library_memory_bytes"],
        }


# CTranslate2 tells what the rest of an int8 model is computed in, too
COMPUTE_TYPES = {"int8_float32": "int8"}


def find(path, device):
    """The ``Found`` of a folder.

    Raises:
        FileNotFoundError, ValueError: it is none that can be measured on ``device``.
    """
    # PyTorch comes with these
    from fairseq_plugins.generation.backends import choose
    from fairseq_plugins.generation.converted import is_converted, open_converted
    from fairseq_plugins.generation.models import open_model

    folder = open_converted(path) if is_converted(path) else open_model(path)
    backend = "ctranslate2" if folder.exported else "fairseq"
    return Found(str(path), folder, choose([folder], backend=backend, device=device))


def find_all(models, device):
    """The ``Found`` of each folder, all of which translate from one language."""
    found, languages = [], {}
    for path in models:
        if str(path) in [model.name for model in found]:
            raise ValueError(f"{path} is named twice; name each model once")
        model = find(path, device)
        if model.source_lang:
            languages.setdefault(model.source_lang, path)
        found.append(model)
    if len(languages) > 1:
        (one, its), (other, others), *_ = languages.items()
        raise ValueError(
            f"{its} translates from {one} and {others} from {other}; measure them apart"
        )
    return found


def model_files(folder):
    """Paths of the files that hold the model, without its subwords."""
    from fairseq_plugins.generation.models import EXPORTED_FILES

    if not folder.exported:
        return [folder.weights]
    return [folder.path / name for name in EXPORTED_FILES if (folder.path / name).exists()]


# -- turns ---------------------------------------------------------------------------------


class Plan(NamedTuple):
    """Numbers of the sentences that are measured, for each ``Translator`` one by one."""

    batched: list
    one_by_one: dict

    @classmethod
    def of(cls, translators, rounds, sentences, seconds):
        """A plan for so many sentences and seconds, by the times of a first, short round."""
        everything = range(sentences)
        batched, alone = {}, {}
        for translator in tqdm(translators, desc="warming up", unit=" models",
                               **command.bar_settings()):  # fmt: skip
            batched[translator] = alone[translator] = 0.0
            for task, mode in TASKS:
                few = evenly(everything, WARM_UP[task])
                turn = translator.ask(task, mode=mode, numbers=few)
                if task == "batched":
                    batched[translator] += turn["seconds"] / turn["sentences"]
                else:
                    alone[translator] += statistics.median(turn["seconds"])
        half = seconds / 2 / rounds
        number = max(round(half / sum(batched.values())), FEWEST_BATCHED)
        return cls(
            evenly(everything, number),
            {key: evenly(everything, most) for key, most in shares(alone, half).items()},
        )


def shares(costs, seconds):
    """How many sentences each may take one by one: what the cheap leave is for the dear.

    Args:
        costs: {key: seconds of a sentence}.
        seconds: for all of them together.

    Returns:
        {key: number}, from ``FEWEST_ONE_BY_ONE`` to ``MOST_ONE_BY_ONE``.
    """
    numbers, left = {}, seconds
    for place, key in enumerate(sorted(costs, key=costs.get)):
        affordable = int(left / (len(costs) - place) / costs[key])
        numbers[key] = min(max(affordable, FEWEST_ONE_BY_ONE), MOST_ONE_BY_ONE)
        left = max(left - numbers[key] * costs[key], 0.0)
    return numbers


def take_turns(translators, plan, rounds):
    """{translator: {(task, mode): list of what it told, one for each round}}."""
    turns = {translator: {key: [] for key in TASKS} for translator in translators}
    progress = tqdm(total=rounds * len(TASKS) * len(translators), desc="measuring", unit=" turns",
                    **command.bar_settings())  # fmt: skip
    with progress:
        for number in range(rounds):
            for task, mode in TASKS:
                for translator in rotated(translators, number):
                    numbers = plan.batched if task == "batched" else plan.one_by_one[translator]
                    turn = translator.ask(task, mode=mode, numbers=numbers)
                    turns[translator][task, mode].append(turn)
                    progress.update()
    return turns


def rotated(items, number):
    """The same list, begun ``number`` places later."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


def evenly(items, number):
    """So many of a list, spread evenly over it; all where there are no more."""
    number = min(len(items), number)
    return [items[int((place + 0.5) * len(items) / number)] for place in range(number)]


# -- figures -------------------------------------------------------------------------------


def summary(turns, sentences):
    """What is recorded of a model and a mode.

    Args:
        turns: {task: list of what :class:`Measured` told, one for each round}.
        sentences: number of those in batches.

    Returns:
        dictionary: sentences_per_second (median), sentences_per_second_range (slowest and
        fastest round), tokens_per_second; one_by_one has the same, sentences (their number),
        sentence_ms and, where it was measured, first_token_ms, see :func:`percentiles`.
    """
    batched = turns["batched"]
    record = rates([turn["sentences"] / turn["seconds"] for turn in batched],
                   batched[0]["tokens"] / sentences)  # fmt: skip
    alone = turns["one_by_one"]
    number = len(alone[0]["seconds"])
    record["one_by_one"] = {
        "sentences": number,
        **rates([number / sum(turn["seconds"]) for turn in alone], alone[0]["tokens"] / number),
        "sentence_ms": percentiles([turn["seconds"] for turn in alone]),
    }
    if "first_token" in turns:
        record["one_by_one"]["first_token_ms"] = percentiles(
            [turn["seconds"] for turn in turns["first_token"]]
        )
    return record


def rates(speeds, pieces):
    """Median of the rounds' sentences/s, their range, and tokens/s.

    Args:
        speeds: sentences per second, one for each round.
        pieces: of a translation, on average.
    """
    median = statistics.median(speeds)
    return {
        "sentences_per_second": rounded(median),
        "sentences_per_second_range": [rounded(min(speeds)), rounded(max(speeds))],
        "tokens_per_second": rounded(median * pieces),
    }


def percentiles(rounds):
    """Milliseconds: {"p50": x, "p90": y, "p99": z}, interpolated, of each sentence's median round.

    Args:
        rounds: list of lists of seconds, the same sentences in each.
    """
    import numpy as np

    sentences = np.median(np.array(rounds), axis=0)
    found = np.percentile(sentences, PERCENTILES) * 1000
    return {f"p{p}": rounded(float(ms)) for p, ms in zip(PERCENTILES, found, strict=True)}


def rounded(number):
    """Four significant digits."""
    return float(f"{number:.4g}")


# -- the machine ---------------------------------------------------------------------------


def many(models, workers, threads):
    """Batches at once and threads for each, the same for all models.

    Raises:
        ValueError: they are more than the cores that this process may use.
    """
    from fairseq_plugins.generation.backends import workers_and_threads

    workers, threads = min(
        workers_and_threads(model.choice, workers, threads) for model in models
    )
    on_cpu, cores = models[0].choice.device == "cpu", usable_cores()
    if on_cpu and workers * threads > cores:
        raise ValueError(
            f"--workers {workers} with --threads {threads} each are more than the {cores} cores "
            f"that this process may use, so the figures would say little; take fewer"
        )
    return workers, threads


# -- the table -----------------------------------------------------------------------------


def table(record):
    """The record for people, in 100 columns."""
    models, beam = record["models"], f"beam {record['beam']}"
    names = short_names(models)
    first = next(iter(models.values()))
    several = len(models) > 1

    def batched(model):
        cells = []
        for mode in MODES:
            cells += [_number(model[mode][unit]) for unit in UNITS]
            if several:
                ratio = model[mode][UNITS[0]] / first[mode][UNITS[0]]
                cells.append(f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}")
        return cells

    def alone(model):
        modes = [model[mode]["one_by_one"] for mode in MODES]
        cells = [_number(mode[unit]) for mode in modes for unit in UNITS]
        return [*cells, str(modes[0]["sentences"])]

    def latencies(model):
        beam_ms, greedy = (model[mode]["one_by_one"] for mode in MODES)
        columns = beam_ms["sentence_ms"], greedy["sentence_ms"], greedy["first_token_ms"]
        return [_number(ms) for column in columns for ms in column.values()]

    def costs(model):
        return [
            f"{model['backend']} {model['compute_type']}", _millions(model["parameters"]),
            _millions(model["embedding_parameters"]), f"{model['bytes'] / 1e6:,.1f}",
            f"{model['load_seconds']:.2f}", f"{model['peak_memory_bytes'] / 1e6:,.0f}",
            f"{model['library_memory_bytes'] / 1e6:,.0f}",
        ]  # fmt: skip

    threads = _number_of(record["threads_per_worker"], "thread")
    steps = [f"p{p}" for p in PERCENTILES]
    units = ["sentences/s", "tokens/s"]
    parts = [
        (
            f"In batches: {record['sentences']:,} sentences, "
            f"{_number_of(record['workers'], 'batch', 'es')} at once, {threads} each"
            + ("; ×: times the first model" if several else ""),
            [header for title in (beam, "greedy") for header in
             _under(title, [*units, "×"] if several else units)],
            batched,
        ),
        (
            f"One by one, {threads}; so many sentences",
            [*_under(beam, units), *_under("greedy", units), ("", "of")], alone,
        ),
        (
            f"Milliseconds of a sentence, one by one, {threads}: half of the sentences take p50 at "
            "most,\n90 % p90, 99 % p99; and to the first token (greedy)",
            [header for title in (beam, "greedy", "1st token") for header in
             _under(title, steps)],
            latencies,
        ),
        (
            "Millions of parameters, and of embeddings among them; MB on disk; seconds to load; MB "
            "of\nmemory at most, and before the model is loaded",
            [("", title) for title in ("translated by", "param.", "embed.", "disk", "load",
                                       "memory", "before")],
            costs,
        ),
    ]  # fmt: skip
    lines = [
        f"{record['source']} on {record['processor']}, {record['cores']} cores, "
        f"{record['device']};\nmedian of {_number_of(record['rounds'], 'round')}, load average "
        f"{record['load_average']:.1f} before; tokens are pieces of the translation"
    ]
    for title, headers, cells in parts:
        rows = [(folded(names[path]), cells(model)) for path, model in models.items()]
        lines += ["", title, *columns(headers, rows)]
    return "\n".join(lines)


def _under(title, titles):
    """(upper, lower) headers of neighbouring columns, the upper one for all of them."""
    return [(title if place == 0 else "", lower) for place, lower in enumerate(titles)]


def _number_of(number, what, plural="s"):
    return f"{number:,} {what}{plural if number > 1 else ''}"


def columns(headers, rows):
    """Lines of a table.

    Args:
        headers: list of the columns' (upper line, lower line), but the first column's.
        rows: list of (lines of the first column, list of the others' texts).
    """
    right = [*map(list, zip(*headers, strict=True)), *(cells for _, cells in rows)]
    widths = [max(map(len, column)) for column in zip(*right, strict=True)]
    first = max(len(line) for name, _ in rows for line in name)
    above = [([""], line) for line in right[:2] if any(line)]
    rule = (["-" * first], ["-" * width for width in widths])
    lines = []
    for name, cells in [*above, rule, *rows]:
        texts = [text.rjust(width) for text, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([name[0].ljust(first), *texts]).rstrip())
        lines += name[1:]
    return lines


def folded(name):
    """Lines of at most ``NAME_WIDTH`` characters, broken after slashes."""
    lines = [""]
    for part in re.split("(?<=/)", name):
        if lines[-1] and len(lines[-1] + part) > NAME_WIDTH:
            lines.append("  ")
        lines[-1] += part
    return lines


def short_names(paths):
    """{path: what is left of it without the folders that all of several share}."""
    paths = list(paths)
    parts = [Path(path).parts for path in paths]
    shared = 0
    while len(paths) > 1 and len({part[: shared + 1] for part in parts}) == 1:
        shared += 1
    return {path: str(Path(*part[shared:])) for path, part in zip(paths, parts, strict=True)}


def _millions(number):
    return "?" if number is None else f"{number / 1e6:,.2f}"


def _number(value):
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def _check_numbers(**numbers):
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name} is 1 or more, not {value}")


def _parser():
    words = command.parser(__doc__, PROG)
    words.add_argument(
        "models", nargs="+", metavar="MODEL",
        help="folders made by dad-export or dad-keep-weights, or by CTranslate2's converters; the "
        "first is what the others are compared with",
    )  # fmt: skip
    words.add_argument("--source", required=True, metavar="FILE", help="sentences, one a line")
    words.add_argument("--out", required=True, metavar="DIR", help=f"folder to make, with {RECORD}")
    words.add_argument("--beam", type=int, default=5, metavar="N", help="besides greedy")
    words.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each model")
    words.add_argument(
        "--limit", type=int, default=DEFAULT_LIMIT, metavar="N",
        help="most sentences, spread evenly over short and long ones",
    )  # fmt: skip
    words.add_argument(
        "--seconds", type=int, default=DEFAULT_SECONDS, metavar="S",
        help="about how long measuring may take, loading apart; slow models take fewer sentences "
        f"for it, at least {FEWEST_BATCHED} in batches and {FEWEST_ONE_BY_ONE} one by one",
    )  # fmt: skip
    words.add_argument(
        "--workers", type=int, metavar="N",
        help="batches at once; where it is not given, as many as the cores allow",
    )  # fmt: skip
    words.add_argument(
        "--threads", type=int, metavar="N", help="for each worker; one where it is not given"
    )
    words.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="a GPU only where asked for"
    )
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    return words


if __name__ == "__main__":
    main()
