"""What the time of a run went into: training, decoding, and everything else, which is overhead.

``split`` returns a dictionary of plain values, seconds all:

  wall      {"training", "decoding", "other", "between", "all"} by the clock: while several stages
            run side by side each gets an equal part of the time, so nothing counts twice; between
            is the time in which no stage ran
  stopped   gaps of more than ``LONGEST_GAP``, in which nobody worked at the run; in nothing else
  overhead  share of the wall time that is neither training nor decoding, or null
  cpu       {"training", "decoding", "other", "all"} of whole stages, in which other work on the
            machine counts for nothing; null where no stage tells
  parts     [{"part", "counts_as", "seconds"}] by the clock, the longest first
  kinds     [{"kind", "stages", "seconds", "cpu_seconds"}] of whole stages, each by its own clock

What counts as what:

  training  updates, validation (which decodes dev text) and what EWC needs to know of a model
  decoding  a teacher's translations and distributions, the translations of test sets, and those of
            dev text by which an exported model is compared with its original
  other     all else: text, starting processes and loading models, saving, choosing and binarising
            what a teacher made, exporting, scoring, measuring speed, reports, and the time between
            stages

A stage is taken apart by what its log and the manifests in it tell; without them all of a training
is training, and all of a distillation decoding. Attempts that were killed are not counted, since a
stage tells the time of the attempt that ended well.
"""

import re
from datetime import datetime
from pathlib import Path

from data_prep.manifest import read_json
from data_prep.pipeline.graph import PlannedStage
from data_prep.pipeline.stage import LOG, RECORD, duration

TRAINING, DECODING, OTHER, BETWEEN = "training", "decoding", "other", "between"
LONGEST_GAP = 60  # seconds without a stage after which a run counts as stopped, not as busy

COUNTS_AS = {  # by kind of stage; all others are OTHER
    "train": TRAINING, "fisher": TRAINING,
    "distil": DECODING, "cache": DECODING, "score": DECODING,
}  # fmt: skip
PARTS = {  # of a stage, by its kind: what is not taken apart any further
    "train": "updates",
    "fisher": "Fisher information",
    "distil": "a teacher translates",
    "cache": "a teacher's distribution",
    "score": "translating test sets",
    "candidates": "costs of candidates",
    "text": "text",
    "vocabulary": "vocabulary",
    "prepare": "binarising",
    "export": "exporting",
    "ship": "shipping",
    "speed": "measuring speed",
    "report": "reports",
    "hand over": "handing over",
}
VALIDATION, SAVING = "validation", "saving checkpoints"
AROUND_TRAINING = "starting a training, keeping its weights"
CHOOSING, BINARISING = "choosing what a student learns", "binarising what a student learns"
AROUND_DECODING = "starting to translate, loading a teacher"
AROUND_SCORES = "starting to score, metrics"
COMPARING = "comparing exported models with their originals"
BETWEEN_STAGES = "between stages"

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \| ")
_WRITING = re.compile(r"\(writing took ([\d.]+) seconds\)")


def read_records(work):
    """{folder relative to ``work``: what its stage.json holds} of all finished stages below it."""
    work = Path(work)
    return {
        str(path.parent.relative_to(work)): read_json(path)
        for path in sorted(work.rglob(RECORD))
    }


def split(work, records=None, started=None):
    """What the time of the run in folder ``work`` went into; see the module's docstring.

    Args:
        records: {folder: stage.json}; every finished stage below ``work`` by default.
        started: ISO time at which the recipe was started, where that is known.
    """
    work = Path(work)
    records = read_records(work) if records is None else records
    stages = {
        folder: record for folder, record in records.items()
        if _seconds(record) is not None and _time(record.get("finished")) is not None
    }  # fmt: skip
    spans = {
        folder: (_time(record["finished"]) - _seconds(record), _time(record["finished"]))
        for folder, record in stages.items()
    }
    shares, gaps = share_out(spans, _time(started))
    wall = {TRAINING: 0.0, DECODING: 0.0, OTHER: 0.0}
    parts = {}
    for folder, record in stages.items():
        seconds = _seconds(record)
        scale = shares[folder] / seconds if seconds else 0.0
        for part, counts_as, own in take_apart(work / folder, record):
            wall[counts_as] += own * scale
            parts[part, counts_as] = parts.get((part, counts_as), 0.0) + own * scale
    wall[BETWEEN] = sum(gap for gap in gaps if gap <= LONGEST_GAP)
    parts[BETWEEN_STAGES, OTHER] = wall[BETWEEN]
    every = sum(wall.values())
    return {
        "wall": {name: round(value, 1) for name, value in {**wall, "all": every}.items()},
        "stopped": round(sum(gap for gap in gaps if gap > LONGEST_GAP), 1),
        "overhead": round((wall[OTHER] + wall[BETWEEN]) / every, 4) if every else None,
        "cpu": _cpu(stages),
        "parts": [
            {"part": part, "counts_as": counts_as, "seconds": round(seconds, 1)}
            for (part, counts_as), seconds in sorted(
                parts.items(), key=lambda item: (-item[1], item[0])
            )
            if seconds
        ],
        "kinds": _kinds(stages),
    }  # fmt: skip


def share_out(spans, started=None):
    """({name: seconds}, [gaps]): the time that each of several spans gets, and where none is.

    While several run side by side each gets an equal part.

    Args:
        spans: {name: (start, end)}, seconds since the epoch.
        started: of the whole; the time from there to the first span is a gap, too.
    """
    found, gaps = dict.fromkeys(spans, 0.0), []
    times = sorted({time for span in spans.values() for time in span})
    if started is not None and times and started < times[0]:
        gaps.append(times[0] - started)
    for begin, end in zip(times, times[1:], strict=False):
        running = [name for name, span in spans.items() if span[0] <= begin and end <= span[1]]
        for name in running:
            found[name] += (end - begin) / len(running)
        if not running:
            gaps.append(end - begin)
    return found, gaps


def take_apart(folder, record):
    """[(part, what it counts as, seconds)] of a finished stage; they add up to its seconds."""
    kind, seconds = kind_of(record), _seconds(record)
    if kind == "train":
        found = _training(folder / LOG)
    elif kind == "distil":
        found = _distilling(folder)
    elif kind == "score":
        found = _scoring(folder)
    elif kind == "ship":
        found = _shipping(folder)
    else:
        found = None
    if not found:
        return [(PARTS[kind], counts_as(record), seconds)]
    rest, known = found
    known = [part for part in known if part[2] > 0]
    told = sum(own for *_, own in known)
    if told > seconds:  # stamps of whole seconds
        known = [(part, counts_as, own * seconds / told) for part, counts_as, own in known]
    return [*known, (rest, OTHER, max(0.0, seconds - told))]


def kind_of(record):
    """Kind of a finished stage; see ``graph.KINDS``."""
    words = tuple(record.get("command", ()))
    if words and words[0] == "dad-export" and "--domain" in words:
        return "ship"  # an export with all that users need
    return PlannedStage(0, "", "", command=words).kind


def counts_as(record):
    """Whether a finished stage as a whole is training, decoding, or something else."""
    return COUNTS_AS.get(kind_of(record), OTHER)


def _training(log):
    """Where the time of a training's last attempt went; None where its log does not tell."""
    if not log.exists():
        return None
    first = last = asked = None
    validation = saving = 0.0
    with open(log, encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            if line.startswith("$ "):  # an attempt begins
                first = last = asked = None
                validation = saving = 0.0
            match = _STAMP.match(line)
            if not match:
                continue
            now = datetime.fromisoformat(match[1]).timestamp()
            if "Start iterating over samples" in line:
                first = now if first is None else first
            elif "begin validation on" in line:
                asked = now if asked is None else asked
            elif asked is not None and "| INFO | valid" in line:
                validation += now - asked
                asked = now  # of the next subset, if another is validated now
            elif writing := _WRITING.search(line):
                saving += float(writing[1])
                asked = None
            elif "done training in" in line:
                last = now
            elif "begin training epoch" in line:
                asked = None
    if first is None or last is None:
        return None
    updates = max(0.0, last - first - validation - saving)
    return AROUND_TRAINING, [
        (PARTS["train"], TRAINING, updates), (VALIDATION, TRAINING, validation),
        (SAVING, OTHER, saving),
    ]  # fmt: skip


def _distilling(folder):
    decoded = _decoding(folder / "decoded")
    if decoded is None:
        return None
    return AROUND_DECODING, [
        (PARTS["distil"], DECODING, decoded),
        (CHOOSING, OTHER, _manifest(folder / "text").get("seconds", 0.0)),
        (BINARISING, OTHER, _manifest(folder / "prepared").get("seconds", 0.0)),
    ]


def _scoring(folder):
    decoded = _decoding(folder)
    return None if decoded is None else (AROUND_SCORES, [(PARTS["score"], DECODING, decoded)])


def _shipping(folder):
    decoded = (_manifest(folder).get("counts") or {}).get("decode_seconds")
    return None if decoded is None else (PARTS["ship"], [(COMPARING, DECODING, decoded)])


def _decoding(folder):
    """Seconds that dad-generate decoded for the files of a folder; None where none is told."""
    found = [
        counts["decode_seconds"]
        for path in sorted(folder.glob("*.manifest.json"))
        if "decode_seconds" in (counts := read_json(path).get("counts") or {})
    ]
    return sum(found) if found else None


def _manifest(folder):
    path = folder / "manifest.json"
    return read_json(path) if path.exists() else {}


def _cpu(stages):
    known = [record for record in stages.values() if record.get("cpu_seconds") is not None]
    if not known:
        return None
    found = {TRAINING: 0.0, DECODING: 0.0, OTHER: 0.0}
    for record in known:
        found[counts_as(record)] += record["cpu_seconds"]
    return {name: round(value, 1) for name, value in {**found, "all": sum(found.values())}.items()}


def _kinds(stages):
    found = {}
    for record in stages.values():
        entry = found.setdefault(
            kind_of(record), {"stages": 0, "seconds": 0.0, "cpu_seconds": None}
        )
        entry["stages"] += 1
        entry["seconds"] = round(entry["seconds"] + _seconds(record), 1)
        if (cpu := record.get("cpu_seconds")) is not None:
            entry["cpu_seconds"] = round((entry["cpu_seconds"] or 0.0) + cpu, 1)
    return [
        {"kind": kind, **entry}
        for kind, entry in sorted(found.items(), key=lambda item: (-item[1]["seconds"], item[0]))
    ]


def as_text(found):
    """The split for people: a line for training, decoding and all else, then what that is."""
    wall = found["wall"]
    if not wall["all"]:
        return ""
    rows = [
        ("training", wall[TRAINING]), ("decoding", wall[DECODING]),
        ("everything else", wall[OTHER] + wall[BETWEEN]),
    ]  # fmt: skip
    rows += [
        (f"  {entry['part']}", entry["seconds"])
        for entry in found["parts"]
        if entry["counts_as"] == OTHER
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"By the clock, stages side by side counted once: {duration(wall['all'])}"]
    lines += [
        f"  {name:<{width}}  {duration(seconds):>12}  {share(seconds, wall['all']):>6}"
        for name, seconds in rows
    ]
    if found["stopped"]:
        lines.append(f"Not in it: {duration(found['stopped'])} in which the run stood still")
    return "\n".join(lines)


def share(seconds, every):
    """A part of a time for people: 4.9 %."""
    return f"{100 * seconds / every:.1f} %"


def _seconds(record):
    seconds = record.get("seconds")
    return seconds if isinstance(seconds, (int, float)) else None


def _time(text):
    """Seconds since the epoch of an ISO time, None where there is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None
