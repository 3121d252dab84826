"""Explain the plan of a run: what it is, what is done, what will run and why, and what it costs.

Usage: dad-plan --work DIR [--plan FOLDER] [--jobs N] [--format text|json]

`--plan` of the recipes calls it with the plan that they have just made. Nothing is run, fetched or
changed. It needs Python alone, so it works before anything is installed.

The hours come from what `dad-calibrate` measured on this machine; else from the finished stages
of this run; else from a machine of ours, and then the text says so.

Example:
  bash recipes/de-en/run.sh --general my/general --domain medical=my/medical --work runs/m --plan
  dad-plan --work runs/m                       # a run that is there
"""

import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from data_prep import command
from data_prep.manifest import machine, read_json
from data_prep.model_sizes import SIZES
from data_prep.pipeline import known_rates
from data_prep.pipeline.estimate import Estimate, Estimator, flags
from data_prep.pipeline.forecast import Forecast, slowdown
from data_prep.pipeline.graph import PLAN, STAGES, dependencies, read_plan
from data_prep.pipeline.resources import number_of_jobs, shares, this_machine
from data_prep.pipeline.stage import RECORD, duration
from data_prep.pipeline.state import (
    AGAIN,
    BLOCKED,
    DONE,
    GOES_ON,
    LEFT_OUT,
    NEW,
    RUNNING,
    State,
    states,
)

PROG = "dad-plan"
WIDTH = 100
PATH = 46  # columns for the name of a stage
MOST_REASONS = 3  # that a line shows
LANGUAGES = {"de": "German", "en": "English", "ru": "Russian", "zh": "Chinese"}
MARKS = {DONE: "✓", NEW: "·", AGAIN: "↻", GOES_ON: "▸", RUNNING: "▶", BLOCKED: "✗", LEFT_OUT: "-"}
TARGETS = {  # rows of the grid: configurations with the starts random, references, distilled
    "the domain's references": (1, 4, 7),
    "output of a teacher of this domain only": (2, 5, 8),
    "output of the adapted teacher": (3, 6, 9),
}
STARTS = ("random weights", "student R", "student D")
SEED = re.compile(r"-seed(\d+)(?=/|$)")  # in the name of a folder; the first seed is not said
ABOUT = {  # what is done under a number of the chain, in the words of somebody new
    1: "get the text, clean it, keep test sets out of the training text",
    2: "learn one set of subwords for all models",
    3: "encode the text for training",
    4: "train the large teacher on general text",
    5: "the teacher translates the general text: what a student learns from",
    6: "train the small general students, from which in-domain students start",
    7: "adapt the teacher to each domain: go on with in-domain text",
    8: "the domain's teacher translates the in-domain text",
    9: "train the in-domain students: what all this is for",
    10: "export every model as it would ship, and score it on the test sets",
    11: "measure speed; write the page with the table, intervals and a verdict",
    12: "pack the students with all that their users need",
}


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, PROG)
    parser.add_argument("--work", required=True, help="folder of the run; need not exist yet")
    parser.add_argument("--plan", metavar="FOLDER",
                        help="folder of the plan, where it is not WORK/plan")  # fmt: skip
    parser.add_argument(
        "--jobs", type=number_of_jobs, default="auto", metavar="N",
        help="stages side by side at most; auto: as many as dad-run would start",
    )  # fmt: skip
    parser.add_argument("--format", choices=["text", "json"], default="text")
    args = parser.parse_args(argv)
    plan = Path(args.plan or Path(args.work) / PLAN).resolve()
    if not (plan / STAGES).exists():
        raise FileNotFoundError(
            f"{plan} holds no plan ({STAGES}); the recipes make one: "
            "bash recipes/de-en/run.sh ... --plan"
        )
    explained = explain(Path(args.work), plan, args.jobs)
    print(json.dumps(as_json(explained), indent=1, ensure_ascii=False)
          if args.format == "json" else as_text(explained))  # fmt: skip


@dataclass(frozen=True)
class Explained:
    """A plan with the state and the cost of each of its stages.

    Attributes:
        work: folder of the run, as it was given.
        run: ``run.json``.
        tables: {domain: (rows, steps)}, lists of dictionaries.
        stages: ``PlannedStage`` in the order of the chain.
        needs: {out: [out of what it reads]}.
        states: {out: ``State``}.
        costs: {out: ``Estimate``}.
        took: {out: (seconds, bytes)} of finished stages.
        known: ``Known``: the rates and where they come from.
        forecast: ``Forecast`` of the stages that will run.
        whole: the same of all stages.
        machine: see ``manifest.machine``.
        free: bytes free where the run's folder is.
        vocabulary: pieces.
        parameters: {size: number}.
    """

    work: str
    run: dict
    tables: dict
    stages: list
    needs: dict
    states: dict
    costs: dict
    took: dict
    known: object
    forecast: Forecast
    whole: Forecast
    machine: dict
    free: int
    vocabulary: int
    parameters: dict


def explain(work, plan, jobs="auto"):
    """``Explained`` of the plan in folder ``plan`` for a run in folder ``work``.

    The working directory is changed to ``work`` for the time of looking, where it exists.
    """
    stages = read_plan(plan)
    run = read_json(plan / "run.json")
    here = Path.cwd()
    place = work if work.is_dir() else next(p for p in work.absolute().parents if p.is_dir())
    try:
        if work.is_dir():
            os.chdir(work)
            found = states(stages, plan, *run["stages"])
        else:
            found = _unstarted(stages, *run["stages"])
        about = machine()
        langs = run["source_lang"], run["target_lang"]
        known = known_rates.find(stages, about, Estimator(stages, langs, None).vocabulary)
        estimator = Estimator(stages, langs, known.rates, on_gpu=bool(about["gpus"]))
        costs = {stage.out: estimator.of(stage) for stage in stages}
        took = {stage.out: _took(stage.out) for stage in stages if found[stage.out].name == DONE}
    finally:
        os.chdir(here)
    needs = dependencies(stages)
    place_for = this_machine()
    most = None if jobs == "auto" else jobs
    slower = slowdown(
        shares(stages, needs, place_for, most), place_for.cores,
        known.rates.sharing if known.rates and not about["gpus"] else 1.0,
    )  # fmt: skip
    jobs = most or place_for.places or place_for.cores
    going = [stage for stage in stages if found[stage.out].runs]
    sizes = {size for stage in stages if (size := flags(stage.command).get("--size")) in SIZES}
    return Explained(
        str(work), run, _tables(plan, run["domains"]), stages, needs, found, costs, took, known,
        Forecast.of(going, needs, costs, jobs, slower),
        Forecast.of([s for s in stages if found[s.out].name != LEFT_OUT], needs, costs, jobs,
                    slower),
        about, shutil.disk_usage(place).free, estimator.vocabulary,
        {size: estimator.parameters(size) for size in sizes},
    )  # fmt: skip


def _unstarted(stages, first, last):
    """States where the run's folder is not there: all new, but for what cannot be found."""
    made = [stage.out for stage in stages]
    found = {}
    for stage in stages:
        missing = [
            name for name in stage.inputs
            if Path(name).is_absolute() and not Path(name).exists() and name not in made
        ]  # fmt: skip
        if missing:
            found[stage.out] = State(BLOCKED, (f"{missing[0]} is missing",))
        else:
            asked = first <= stage.number <= last
            found[stage.out] = State(NEW if asked else LEFT_OUT)
    return found


def _took(out):
    record = read_json(Path(out) / RECORD)
    return record["seconds"], sum(entry["size"] for entry in record["outputs"].values())


def _tables(plan, domains):
    return {
        domain: tuple(_table(plan / f"{domain}.{name}.tsv") for name in ("rows", "steps"))
        for domain in domains
    }


def _table(path):
    if not path.exists():
        return []
    header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [dict(zip(header.split("\t"), line.split("\t"), strict=False)) for line in lines]


# -- text ----------------------------------------------------------------------------------


def as_text(explained):
    """The plan for people, lines of at most 100 columns."""
    parts = [_about(explained), _graph(explained), _totals(explained), _unknown(explained),
             _next(explained)]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts if part)


def _heading(text):
    return [text, "=" * len(text)]


def _paragraph(text, indent="  "):
    hanging = indent + "  " if text.startswith("- ") else indent
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent=indent,
                         subsequent_indent=hanging, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip


def _about(explained):
    """What the experiment is, with the numbers of this plan."""
    run = explained.run
    source, target = (LANGUAGES.get(run[key], run[key]) for key in ("source_lang", "target_lang"))
    trains = [stage for stage in explained.stages if stage.kind == "train"]
    teacher = next((stage for stage in trains if stage.out.startswith("teacher/")), None)
    students = _sizes(run)
    lines = _heading(f"Plan: {source} to {target}, for {_and(run['domains'])}")
    shape = "A large teacher"
    if teacher:
        shape += f" ({_shape(explained, flags(teacher.command)['--size'])})"
    configurations = [int(number) for number in run["configurations"]]
    lines += _paragraph(
        f"{shape} learns to translate from general text. It is too slow to ship. So small "
        f"students ({_and([_shape(explained, size) for size in students])}) learn from its "
        "translations, which are easier to learn than those of people: that is distilling. "
        f"Teacher and students then go on with text of your domain, {_or(run['domains'])}: that "
        "is adapting. Distil, adapt, distil again with the adapted teacher: that is the method of "
        "Gordon & Duh (2020). "
        + ("This run finds out which of these steps pays for your text." if len(configurations) > 1
           else "Which of these steps pays for your text one configuration cannot tell; "
           "--configuration 1,4,7,9 does.")
    )  # fmt: skip
    lines += ["", *_paragraph(
        ("One student" if len(configurations) == 1 else f"{len(configurations)} students")
        + (" for each domain" if len(run["domains"]) > 1 else "")
        + (f" and each of {len(students)} sizes" if len(students) > 1 else "")
        + (f", trained {len(seeds)} times with different seeds, which tells chance from effect"
           if len(seeds := run.get("seeds", [])) > 1 else "")
        + (". Its number, its configuration, says " if len(configurations) == 1 else
           ". Their numbers, the configurations, say ")
        + "what a student starts from and what it learns from in the domain:"
    ), "", *_grid(configurations), ""]  # fmt: skip
    notes = []
    if any(number > 3 for number in configurations):
        notes.append("R and D are students of general text: R has learnt from references, which "
                     "are translations by people, D from the teacher's translations of the same "
                     "text.")  # fmt: skip
    if any(not SEED.sub("", stage.out).split("/")[2].isdigit()
           for stage in trains if stage.number == 9):  # fmt: skip
        notes.append("A longer name, such as 9-word or 9-mixed, is a configuration with an option: "
                     "run.sh --help explains the word.")  # fmt: skip
    if 9 in configurations:
        notes.append("Configuration 9 is the whole method: distil, adapt, distil.")
    lines += _paragraph(" ".join(notes))
    lines += ["", *_paragraph(_budget(explained, trains)), *_compared(explained)]
    return lines


def _sizes(run):
    sizes = run.get("sizes") or run["size"]
    return sizes if isinstance(sizes, list) else [sizes]


def _shape(explained, size):
    """A size in words, with parameters."""
    if size not in SIZES:
        return size
    shape = SIZES[size]
    return (f"{size}: {shape.encoder_layers} + {shape.decoder_layers} layers, width {shape.width}, "
            f"{explained.parameters[size] / 1e6:.1f} million parameters")  # fmt: skip


def _grid(configurations):
    """The grid of students, those that are not asked for left empty."""
    width = 2 + max(map(len, TARGETS))
    lines = [f"    {'learns from':<{width}}starts from"]
    lines += ["    " + " " * width + "".join(f"{start:<16}" for start in STARTS).rstrip()]
    for target, numbers in TARGETS.items():
        asked = [str(number) if number in configurations else "" for number in numbers]
        if any(asked):
            row = f"    {target:<{width}}" + "".join(f"{number:<16}" for number in asked)
            lines.append(row.rstrip())
    return lines


def _budget(explained, trains):
    """That all students get the same tries, and how many."""
    budgets = {}
    for stage in trains:
        if stage.number == 9 and "sequence-risk" not in stage.command:
            words = flags(stage.command)
            budgets.setdefault(
                (words.get("--updates"), words.get("--max-tokens"), words.get("--patience")), []
            ).append(stage)
    if len(budgets) != 1:
        return "The students differ in their budget, so compare them with care."
    ((updates, max_tokens, patience), _), = budgets.items()
    stop = f"or until {patience} validations in a row bring no better dev BLEU" \
        if patience not in (None, "0") else "with no early stop"  # fmt: skip
    return (
        f"Every in-domain student gets the same tries: at most {int(updates):,} updates of "
        f"{int(max_tokens):,} tokens, {stop}; the checkpoint with the best dev BLEU is kept. The "
        "test sets choose nothing. They are translated once, at the end."
    )


def _compared(explained):
    """What the table will compare."""
    steps = {}
    for _, found in explained.tables.values():
        for step in found:
            steps.setdefault((step["old"], step["new"]), step["words"])
    if not steps:
        return []
    main_ = {pair: words for pair, words in steps.items() if "configuration" not in words}
    lines = ["", *_paragraph(
        "A table for each domain scores every model on in-domain and general test sets (BLEU, "
        "chrF, TER, each with an interval; size; sentences a second). It says of each step what "
        "it bought, and whether that is more than noise:"
    )]  # fmt: skip
    width = max((len(f"{old} → {new}") for old, new in main_), default=0)
    for (old, new), words in main_.items():
        lines.append(f"    {old + ' → ' + new:<{width}}   {words}")
    more = len(steps) - len(main_)
    if more:
        lines.append(f"    and {_count(more, 'comparison')} of students with what they started "
                     "from and with their teacher")  # fmt: skip
    return lines


def _graph(explained):
    """Every stage, alike ones in one line, with state, reason and time."""
    lines = _heading("What will run")
    lines += [*_picture(explained), ""]
    longest = _longest(explained)
    seen = None
    for group in _groups(explained):
        stage = group[0]
        if stage.number != seen:
            seen = stage.number
            about = ABOUT.get(seen, "")
            lines += [f"{seen:>3}  {stage.title}" + (f": {about}" if about else "")]
        lines += _group_lines(explained, group, longest)
    used = {state.name for state in explained.states.values()}
    legend = ",  ".join(f"{mark} {name}" for name, mark in MARKS.items() if name in used)
    lines += ["", f"     {legend}"]
    if AGAIN in used:
        lines += _paragraph(
            "A stage that comes from another one stays as it is where what it reads turns out to "
            "have the same bytes as before.", indent="     ")  # fmt: skip
    return lines


def _picture(explained):
    """The chain as a drawing: what of the grid this plan has."""
    outs = {stage.out for stage in explained.stages}
    configurations = [int(number) for number in explained.run["configurations"]]

    def numbers(*of):
        found = [str(number) for number in of if number in configurations]
        return ("students " if len(found) > 1 else "student ") + " ".join(found) if found else ""

    domain = "each domain" if len(explained.run["domains"]) > 1 else explained.run["domains"][0]
    rows = []
    if any("/distilled" in out for out in outs):
        rows.append("teacher ─► its translations ─► student D ─► " + numbers(7, 8, 9))
    else:
        rows.append("teacher")
    if any("/references/" in out for out in outs):
        rows.append("student R ─► " + numbers(4, 5, 6))
    lines = [f"     general text ──┬─► {rows[0]}" if len(rows) > 1
             else f"     general text ────► {rows[0]}"]  # fmt: skip
    if len(rows) > 1:
        lines.append(f"                    └─► {rows[1]}")
    label = f"{domain} text" if domain != "each domain" else "text of a domain"
    branches = []
    adapted = [out for out in outs if out.startswith("distilled/")
               and out.split("/")[1] == out.split("/")[-1] != "general"]  # fmt: skip
    branches.append("adapted teacher"
                    + (" ─► its translations ─► " + numbers(3, 6, 9) if adapted else ""))
    if any(out.endswith("-scratch") for out in outs):
        branches.append("teacher of the domain only ─► its translations ─► " + numbers(2, 5, 8))
    if numbers(1, 4, 7):
        branches.append(numbers(1, 4, 7))
    for number, branch in enumerate(branches):
        first, last = number == 0, number == len(branches) - 1
        corner = "────►" if first and last else "──┬─►" if first else "  └─►" if last else "  ├─►"
        lines.append(f"     {label if first else ' ' * len(label)} {corner} {branch}")
    return lines


def _group_lines(explained, group, longest):
    state = explained.states[group[0].out]
    cost = _together([explained.costs[stage.out] for stage in group])
    each = f" × {len(group)}" if len(group) > 1 else ""
    if state.name == DONE:
        seconds = sum(explained.took[stage.out][0] for stage in group)
        time = f"took {duration(seconds)}"
    elif state.name in (LEFT_OUT, BLOCKED):
        time = ""
    else:
        time = hours(cost.low, cost.high)
        if cost.high is None and cost.limit:
            time += f", {_at_most(cost.limit)}"
    path = _name([stage.out for stage in group]) + each
    note = "  longest" if longest in [stage.out for stage in group] else ""
    status = state.name if state.name != NEW else ""
    start = f"     {MARKS[state.name]} {path}"
    lines = []
    if len(path) > PATH:  # a long name has a line for itself
        lines, start = [start], ""
    if not lines or status or time:
        lines.append(f"{start:<{PATH + 9}}{status:<18}  {time}{note}".rstrip())
    for reason in _reasons(explained, group)[:MOST_REASONS]:
        lines += _paragraph(reason, indent="         ")
    if state.name not in (DONE, LEFT_OUT):
        origins = {_origin(stage, explained.run["domains"]) for stage in group} - {""}
        if len(origins) > 1 and group[0].number == 9:
            origins = {"what they start and learn from: see the grid above"}
        if len(origins) == 1:
            lines += _paragraph(origins.pop(), indent="         ")
    return lines


def _name(outs):
    """Folders of a line; of many that no pattern fits, what they have in common."""
    texts = _braces(outs)
    seeds = sorted({found[1] if (found := SEED.search(out)) else "1" for out in outs})
    alike = list(dict.fromkeys(SEED.sub("", out) for out in outs))
    if len(seeds) > 1 and len(alike) * len(seeds) == len(outs):
        return f"{_name(alike)}, seeds {_and(seeds)}"
    if len(texts) < 3 and len(" ".join(texts)) < 80:
        return " ".join(texts)
    return os.path.commonpath(outs) + "/..."


def _reasons(explained, group):
    """Reasons of all stages of a group, each once."""
    found = {}
    for stage in group:
        for reason in explained.states[stage.out].reasons:
            found.setdefault(_of_any_domain(reason, explained.run["domains"]), None)
    origins = [reason for reason in found if reason.startswith("comes from")]
    if len(origins) > 1:
        found = {reason: None for reason in found if reason not in origins}
        found["what each of them is made from will be made again"] = None
    if explained.states[group[0].out].name not in (AGAIN, BLOCKED):
        return list(found)
    return ["because " + reason if number == 0 else "and " + reason
            for number, reason in enumerate(found)]  # fmt: skip


def _origin(stage, domains):
    """What a model or a teacher's output is made of."""
    words = flags(stage.command)
    if stage.kind == "train":
        text = f"learns from {words['--data'].removesuffix('/prepared')}"
        if "--init" in words:
            text += f", starts from {words['--init']}"
    elif stage.kind == "distil":
        text = f"{words['--teacher']} translates {words['--text'].removesuffix('/text')}"
    else:
        return ""
    return _of_any_domain(text, domains)


def _of_any_domain(text, domains):
    """A text in which a domain stands for all of them."""
    if len(domains) < 2:
        return text
    for domain in sorted(domains, key=len, reverse=True):
        text = text.replace(f"/{domain}", "/DOMAIN")
    return text


def _groups(explained):
    """Lists of stages that are alike: same number, kind and state, for the same reason."""
    groups = {}
    domains = explained.run["domains"]
    for stage in explained.stages:
        state = explained.states[stage.out]
        # what comes from another stage is told together, whichever stage that is
        reasons = tuple(_of_any_domain(reason, domains) if not reason.startswith("comes from")
                        else "comes from" for reason in state.reasons)  # fmt: skip
        # the grid tells what in-domain students are made of
        origin = _origin(stage, domains) if stage.number != 9 else ""
        key = (stage.number, stage.kind, stage.out.split("/")[0], len(stage.out.split("/")),
               stage.out.split("/")[-1] in ("raw", "split", "text", "prepared", "sources")
               and stage.out.split("/")[-1], state.name, reasons, origin)  # fmt: skip
        groups.setdefault(key, []).append(stage)
    return sorted(groups.values(), key=lambda group: group[0].number)


def _braces(outs):
    """Folders in few words: student/small/{1,4}/{medical,it} where all of these are meant."""
    if len(outs) == 1:
        return outs
    rows = [out.split("/") for out in outs]
    columns = [list(dict.fromkeys(column)) for column in zip(*rows, strict=True)]
    together = 1
    for column in columns:
        together *= len(column)
    if together == len(rows):
        return ["/".join(c[0] if len(c) == 1 else "{" + ",".join(c) + "}" for c in columns)]
    paired = [column for column in columns if len(column) > 1]
    if len(paired) > 1 and all(len(column) == len(rows) for column in paired):
        # distilled/medical/medical, distilled/it/it
        values = [row[columns.index(paired[0])] for row in rows]
        pattern = [
            column[0] if len(column) == 1 else "DOMAIN" + row.removeprefix(values[0])
            for column, row in zip(columns, rows[0], strict=True)
        ]
        if all(
            [part.replace("DOMAIN", value) for part in pattern] == row
            for value, row in zip(values, rows, strict=True)
        ):
            return ["/".join(pattern)]
    last = {}
    for row in rows:
        last.setdefault(row[-1], []).append("/".join(row))
    if 1 < len(last) < len(rows):
        return [text for some in last.values() for text in _braces(some)]
    return outs


def _longest(explained):
    """The stage to come that takes longest; None where one is not known."""
    if explained.forecast.unknown:
        return None
    times = {out: explained.costs[out].high for out, state in explained.states.items()
             if state.runs and explained.costs[out].high}  # fmt: skip
    return max(times, key=times.get) if len(times) > 1 else None


def _together(costs):
    """Sum of the times of stages that are alike."""
    limits = [cost.limit for cost in costs]
    limit = None if None in limits else sum(limits)
    if any(cost.high is None for cost in costs):
        return Estimate(limit=limit)
    low, high = (sum(getattr(cost, end) for cost in costs) for end in ("low", "high"))
    return Estimate(low, high, limit=limit)


def _totals(explained):
    """Hours, memory and disk."""
    forecast, whole = explained.forecast, explained.whole
    lines = _heading("What it costs")
    if not forecast.stages:
        return [*lines, "  Nothing: all that was asked for is done."]
    known = explained.known
    lines += _paragraph(f"Speed {known.words}.")
    for note in known.notes:
        lines += _paragraph(note)
    lines += [""]
    rows = []
    if forecast.unknown:
        rows.append(("time", f"not known for {_count(forecast.unknown, 'stage')}, see below; the "
                     f"others take {hours(forecast.low, forecast.high)}"))  # fmt: skip
    else:
        rows.append(("time, one stage after another", hours(forecast.low, forecast.high)))
        if forecast.jobs > 1:
            rows.append((f"time, {forecast.jobs} side by side",
                         hours(forecast.side_by_side_low, forecast.side_by_side_high)))  # fmt: skip
        rows.append(("at the shortest, with any number side by side",
                     hours(forecast.critical_low, forecast.critical_high)))  # fmt: skip
        if len(whole.stages) > len(forecast.stages) and not whole.unknown:
            rows.append(("the whole run, from nothing", hours(whole.low, whole.high)))
    memory = explained.machine["memory_bytes"]
    if forecast.gpu:
        rows.append(("GPU memory at the peak", size(forecast.gpu) + f", in {forecast.gpu_stage}"))
    rows.append(("RAM at the peak", f"{size(forecast.ram)} of {size(memory)}, "
                 f"in {forecast.ram_stage}"))  # fmt: skip
    rows.append(("disk", f"{size(forecast.disk)} stay, {size(forecast.extra)} more while "
                 f"training; {size(explained.free)} are free"))  # fmt: skip
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        lines += textwrap.wrap(f"{name:<{width}}   {value}", WIDTH, initial_indent="    ",
                               subsequent_indent=" " * (width + 7), drop_whitespace=True,
                               break_on_hyphens=False)  # fmt: skip
    if any(c.limit and c.high for c in (explained.costs[s.out] for s in forecast.stages)):
        lines += ["", *_paragraph(
            "A training ends when --patience validations bring nothing better, which nobody can "
            "foretell. The short end is the earliest that can be; the long end takes 30 passes "
            "over the text, by which it has ended as a rule. The limit of --updates alone would "
            f"allow {_at_most(forecast.limit).removeprefix('at most ')}."
        )]  # fmt: skip
    if forecast.ram > memory:
        lines += _paragraph("That is more RAM than this machine has: take a smaller --max-tokens "
                            "(after --) or a smaller --size.")  # fmt: skip
    if forecast.disk + forecast.extra > explained.free:
        lines += _paragraph("That is more than is free: name another place with --work.")
    return lines


def _unknown(explained):
    """What is not known and how to learn it."""
    reasons = {}
    for stage in explained.forecast.stages:
        cost = explained.costs[stage.out]
        if cost.unknown and (cost.high is None or cost.disk is None):
            reasons.setdefault(cost.unknown, []).append(stage)
    lines = []
    for reason, stages in reasons.items():
        lines += _paragraph(f"- {_count(len(stages), 'stage')} not estimated, or not wholly "
                            f"({stages[0].out}{' ...' if len(stages) > 1 else ''}): "
                            f"{reason}.")  # fmt: skip
    pair = f"{explained.run['source_lang']}-{explained.run['target_lang']}"
    if any("fetch" in word for stage in explained.forecast.stages for word in stage.command):
        lines += _paragraph("- Sizes of public corpora: python -m data_prep.fetch --pair "
                            f"{pair} --dry-run asks the servers; the plan of a run that has "
                            "fetched them knows them.")  # fmt: skip
    if not explained.known.is_calibrated:
        lines += _paragraph("- How fast this machine is: dad-calibrate measures it in two to "
                            "three minutes (after source recipes/bootstrap.sh). The plan then "
                            "says hours of this machine.")  # fmt: skip
    blocked = [out for out, state in explained.states.items() if state.name == BLOCKED]
    if blocked:
        lines += _paragraph(f"- {_count(len(blocked), 'stage')} cannot be made as things are "
                            "(✗ above).")  # fmt: skip
    return [*_heading("What is not known"), *lines] if lines else []


def _next(explained):
    """Commands to go on with."""
    lines = _heading("How to go on")
    lines += ["  # run it; with --dry-run, print every command and do nothing"]
    lines += _command(_restart(explained.run["command"]))
    lines += ["  # look on while it runs, from another terminal",
              f"  dad-report --work {shlex.quote(explained.work)} --watch", ""]  # fmt: skip
    return [*lines, *_paragraph(
        "A run can be stopped at any time (Ctrl-C); the same command goes on where it was. After a "
        "change of an option or a text only what depends on it is made again: ask --plan first."
    )]  # fmt: skip


def _command(words):
    """Lines of a command, continued with a backslash before a flag where they grow too long."""
    lines, line = [], "  " + words[0]
    for number, word in enumerate(words[1:], start=1):
        value = words[number + 1] if number + 1 < len(words) else ""
        needed = len(word) + 1 + (len(value) + 1 if not value.startswith("--") else 0)
        if word.startswith("--") and len(line) + needed > WIDTH - 4:
            lines.append(line + " \\")
            line = "     "
        line += " " + word
    return [*lines, line]


def _restart(words):
    """Words of the command that a user types, from that of the chain, without --plan."""
    words = [word for word in words if word not in ("--plan", "--dry-run")]
    start = [_short(words[0])]
    if len(words) > 2 and words[1] == "--config":
        recipe = Path(words[2]).with_name("run.sh")
        if recipe.exists():
            start, words = [_short(recipe)], words[2:]
    return ["bash", *map(shlex.quote, [*start, *words[1:]])]


def _short(path):
    path = Path(os.path.normpath(path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def hours(low, high):
    """A range of seconds in words: "3 to 5 h", "20 min to 2 h", "?"."""
    if high is None:
        return "?"
    (small, unit), (large, name) = _in_units(low), _in_units(high)
    if (small, unit) == (large, name):
        return f"about {large} {name}"
    return f"{small} to {large} {name}" if unit == name else f"{small} {unit} to {large} {name}"


def _in_units(seconds):
    """(number, unit) as people say it."""
    for unit, name, least in ((86400, "d", 2), (3600, "h", 1), (60, "min", 1)):
        if seconds >= unit * least:
            return _number(seconds / unit), name
    return _number(seconds), "s"


def _at_most(seconds):
    number, unit = _in_units(seconds)
    return f"at most {number} {unit}"


def _number(value):
    if value >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.0f}" if value >= 9.5 else f"{value:.1f}".removesuffix(".0")


def size(number):
    """Bytes in words."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{_number(number / unit)} {name}"
    return f"{number / 1e3:.0f} kB"


def _and(words):
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _or(words):
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _count(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")


# -- JSON ----------------------------------------------------------------------------------


def as_json(explained):
    """The plan for programs, a dictionary; times in seconds, sizes in bytes, null: unknown."""
    stages = []
    for stage in explained.stages:
        state, cost = explained.states[stage.out], explained.costs[stage.out]
        done = explained.took.get(stage.out)
        stages.append({
            "number": stage.number, "title": stage.title, "out": stage.out, "kind": stage.kind,
            "needs": explained.needs[stage.out], "state": state.name,
            "reasons": list(state.reasons), "seconds": [cost.low, cost.high],
            "seconds_of_all_updates": cost.limit, "memory_bytes": cost.memory,
            "memory_of": cost.on, "disk_bytes": cost.disk, "disk_bytes_meanwhile": cost.extra,
            "unknown": cost.unknown, "took_seconds": done and done[0],
        })  # fmt: skip
    return {
        "work": explained.work, "run": explained.run, "machine": explained.machine,
        "speed": {"known": explained.known.words, "notes": list(explained.known.notes),
                  "calibrated": explained.known.is_calibrated},
        "stages": stages, "now": explained.forecast.as_json(), "whole": explained.whole.as_json(),
        "disk_bytes_free": explained.free,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
