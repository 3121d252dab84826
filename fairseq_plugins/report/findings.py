"""What a run found, for one domain, as data: this is report.json.

``find`` returns a dictionary of plain values (a number that is not known is null):

  domain, source_lang, target_lang, sizes
  finished        whether all that the domain's table needs is done
  states          {"done": stages, "running", "stopped", "to come"}
  stages          [{"number", "title", "folder", "state", "seconds", "kind"}]; kind is training,
                  decoding or other
  problems        sentences about files that are missing, damaged or do not belong together
  rows            every model: [{"name", "group", "label", "model", "size", "configuration",
                  "variant", "seed", "kind", "state", "parameters", "embedding_parameters",
                  "bytes", "updates", "dev", "in_domain", "general", "speed", "speed_of"}]; kind is
                  teacher, general student or student; state is "scored", "to come" or "another
                  test set"; dev is {"bleu", "set"} of the kept checkpoint; in_domain and general
                  are what dad-evaluate wrote of a test set, speed what dad-speed wrote of the
                  model speed_of, which is of the same group
  groups          the table: rows that differ in their seed alone as one, see ``groups``
  steps           comparisons of groups, see ``comparisons``, each with "words" and "kind"; kind is
                  "distance" from a student to its teacher, else "step"
  recommended     {"name", "row", "model", "by", "dev", "left_out", "students", "rivals", "teacher",
                  "start", "sizes"} or null: what ``choice`` says; rivals are comparisons of those
                  students with it that are not significantly worse on the test set; teacher and
                  start are groups; sizes is [{"size", "name", "comparison"}]: what would be chosen
                  of the other sizes
  to_teacher      comparison of the recommended student with its teacher, or null
  claims          see ``claims``
  advice          see ``advice``
  multi_domain    comparisons of students of all domains with those of this domain alone
  fronts          {"speed": [names], "size": [names]}: groups that no other beats in both BLEU and
                  sentences a second, or BLEU and bytes
  forgetting      [{"name", "start", "in_domain": [before, after], "general": [before, after],
                  "comparison": of the general test set}]
  curves          {model: {"name", "group", "dev", "kept", "validations", "training"}}
  ledgers         [{"folder", "kind", "read", "kept", "steps": [{"step", "read", "dropped",
                  "repaired", "examples"}], "pairs"}]
  seconds         {"training", "decoding", "other", "all"} of whole stages, each by its own clock
  cost            what the clock of the whole run went into, see ``data_prep.pipeline.cost``
  indicators      [{"key", "title", "definition", "source", "counts", "rows": {name: {"value",
                  "count", "of", "shown"}}}]
  sentences       see ``sentences.choose``
  speed           what dad-speed wrote, without the models
  verdict         [{"title", "text", "tone", "points"}]: see ``verdict``
  provenance      {"command", "started", "versions", "commits", "test_sets", "signatures", "seeds",
                  "machine", "trainings"}
"""

import math
from datetime import datetime, timedelta

from data_prep.files import count_lines, find_text
from data_prep.pipeline import cost
from data_prep.pipeline.stage import RECORD
from fairseq_plugins.evaluation.indicators import INDICATORS
from fairseq_plugins.report import choice, claims, sentences
from fairseq_plugins.report.advice import advise
from fairseq_plugins.report.comparisons import Comparer, bleu, is_loss
from fairseq_plugins.report.grid import ADAPTED_TEACHER, TEACHER, Grid, is_multi_domain
from fairseq_plugins.report.groups import SCORED, grouped
from fairseq_plugins.report.run import DONE, GENERAL, TO_COME, file_hash
from fairseq_plugins.report.verdict import judge


def find(run, domain, progress=lambda: None):
    """Everything that a report of one domain says; see the module's docstring.

    Args:
        run: ``run.Run``.
        domain: one of its domains.
        progress: called after each comparison of two systems, the slow part.
    """
    stages = run.stages()
    rows = [_row(run, row) for row in run.rows(domain)]
    speed = run.speed(domain)
    _add_speed(rows, speed)
    groups, by_name = grouped(rows), {row["name"]: row for row in rows}
    compare = Comparer(run, domain, groups, by_name, progress).compare
    grid = Grid(groups, compare)
    recommended = _recommend(groups, by_name, grid, compare)
    report = {
        "domain": domain,
        "source_lang": run.source_lang,
        "target_lang": run.target_lang,
        "sizes": run.sizes,
        **_state(stages, domain, run.domains),
        "stages": [_stage(stage) for stage in stages],
        "rows": rows,
        "groups": list(groups.values()),
        "steps": [
            found for step in run.steps(domain) if (found := _step(run, groups, step, compare))
        ],
        "recommended": recommended,
        "to_teacher": recommended and recommended["teacher"]
        and compare(recommended["name"], recommended["teacher"]),
        "claims": claims.check(grid, groups),
        "advice": advise(grid),
        "multi_domain": _multi_domain(groups, grid, compare),
        "fronts": {
            "speed": _front(groups, lambda of: _path(of, "speed", "beam", "sentences_per_second")),
            "size": _front(groups, lambda of: -of["bytes"] if of["bytes"] else None),
        },
        "forgetting": _forgetting(groups, grid, compare),
        "curves": _curves(run, domain, rows),
        "ledgers": [_ledger(folder, ledger) for folder, ledger in run.ledgers().items()],
        "seconds": _seconds(stages),
        "cost": cost.split(
            run.work, {stage.folder: stage.record for stage in stages if stage.record},
            run.plan.get("started"),
        ),
        "indicators": _indicators(groups.values()),
        "sentences": _sentences(run, domain, by_name, groups, recommended),
        "speed": {name: value for name, value in speed.items() if name != "models"}
        if speed else None,
        "provenance": _provenance(run, domain, stages, rows, speed),
    }  # fmt: skip
    report["verdict"] = judge(report)
    report["problems"] = list(run.problems)
    return without_nan(report)


def without_nan(value):
    """The same data with null for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {name: without_nan(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _path(record, *names):
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record


# -- rows and steps ------------------------------------------------------------------------


def _row(run, row):
    """A row's scores, as far as they are of the test sets that lie in the run's folder now."""
    found = {
        "name": row.name, "group": row.group, "label": row.label, "model": row.model,
        "size": row.size, "configuration": row.configuration, "variant": row.variant,
        "seed": row.seed, "kind": row.kind, "general_domain": row.is_general, "state": TO_COME,
        "parameters": None, "embedding_parameters": None, "bytes": None, "in_domain": None,
        "general": None, "beam": None, "updates": run.kept_update(row.model), "dev": run.dev(row),
    }  # fmt: skip
    if row.scores is None:
        return found
    counts = row.scores.get("counts", {})
    found["state"] = SCORED
    found["beam"] = row.scores.get("beam")
    for name in ("parameters", "embedding_parameters", "bytes"):
        found[name] = counts.get(name)
    for place, test_set in (("in_domain", row.domain), ("general", GENERAL)):
        entry = row.scores["test_sets"].get(test_set)
        scored = [_path(entry, "beam", "bleu", name) for name in ("score", "interval")]
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in scored):
            run.note(f"the scores of {row.name} do not cover the test set {test_set}")
        elif _of_another_test_set(run, row, test_set, entry):
            run.note(
                f"the scores of {row.name} on {test_set} are of another test set than the one in "
                f"corpora/{test_set}/text, and were left out; run the chain again"
            )
        else:
            found[place] = entry
    if found["in_domain"] is None:
        found["state"] = "another test set"
    return found


def _of_another_test_set(run, row, test_set, entry):
    paths = run.test_set(test_set)
    if paths is None:
        return False
    scored_on = run.scored_on(row, test_set)
    if scored_on is not None:
        return scored_on != file_hash(paths["references"])
    return entry.get("lines") != count_lines(paths["references"])


def _add_speed(rows, speed):
    """Of a group one model is timed; its rows all have that speed."""
    timed = {}
    for row in rows:
        if row["group"] not in timed and (entry := _speed_of(speed, row["model"])):
            timed[row["group"]] = entry, row["model"]
    for row in rows:
        own = _speed_of(speed, row["model"])
        row["speed"], row["speed_of"] = (
            (own, row["model"]) if own else timed.get(row["group"], (None, None))
        )


def _speed_of(speed, model):
    for path, entry in (speed or {}).get("models", {}).items():
        if path == f"exported/{model}" or path.endswith(f"/exported/{model}"):
            return entry
    return None


def _step(run, groups, step, compare):
    """A comparison of two groups; None as long as one of them has no score."""
    new, old = groups.get(step.new), groups.get(step.old)
    if new is None or old is None:
        run.note(f"the plan compares a row that is not in the table: {step.words}")
        return None
    found = compare(step.new, step.old)
    kind = "distance" if old["kind"] == "teacher" and new["kind"] == "student" else "step"
    return found and {**found, "words": step.words, "kind": kind}


def _recommend(groups, rows, grid, compare):
    """The student that the dev set chooses, and those that the test set cannot tell from it."""
    students = [
        group for group in groups.values()
        if group["kind"] == "student" and bleu(group) is not None
    ]  # fmt: skip
    best = choice.choose(students)
    if best is None:
        return None
    name = best["name"]
    row = choice.choose_row([
        rows[row] for row in groups[name]["rows"] if bleu(rows[row]) is not None
    ])  # fmt: skip
    found = [compare(student["name"], name) for student in students if student["name"] != name]
    rivals = [comparison for comparison in found if comparison and not is_loss(comparison)]
    teachers = [grid.name(kind, groups[name]["size"]) for kind in (ADAPTED_TEACHER, TEACHER)]
    return {
        **best,
        "row": row["name"], "model": row["model"],
        "students": len(students),
        "rivals": sorted(rivals, key=lambda rival: -rival["difference"]),
        "teacher": next(
            (teacher for teacher in teachers if teacher and bleu(groups[teacher]) is not None),
            None,
        ),
        "start": grid.start(groups[name]),
        "sizes": [
            {"size": size, "name": other["name"], "comparison": compare(other["name"], name)}
            for size, other in choice.by_size(students).items()
            if size != groups[name]["size"]
        ],
    }  # fmt: skip


def _multi_domain(groups, grid, compare):
    """Students of all domains against those of this domain alone."""
    pairs = [
        (group["name"], grid.alone(group)) for group in groups.values() if is_multi_domain(group)
    ]
    return [found for new, old in pairs if old and (found := compare(new, old))]


def _front(groups, gain):
    """Names of the groups that no other beats in BLEU without losing in ``gain``, worst first."""
    points = [
        (gain(group), bleu(group), name)
        for name, group in groups.items()
        if gain(group) is not None and bleu(group) is not None
    ]
    return [
        name
        for own_gain, own, name in sorted(points, reverse=True)
        if not any(
            other_gain >= own_gain and other >= own and (other_gain, other) != (own_gain, own)
            for other_gain, other, _ in points
        )
    ]


def _forgetting(groups, grid, compare):
    """In-domain and general BLEU before and after each adaptation."""
    found = []
    for name, new in groups.items():
        old = groups.get(grid.start(new))
        if old is None or None in (bleu(old), bleu(new)):
            continue
        general = [bleu(old, "general"), bleu(new, "general")]
        if None not in general:
            found.append(
                {"name": name, "start": old["name"], "in_domain": [bleu(old), bleu(new)],
                 "general": general, "comparison": compare(name, old["name"], "general")}
            )  # fmt: skip
    return found


# -- how it came about ---------------------------------------------------------------------


def _stage(stage):
    return {
        "number": stage.number, "title": stage.title, "folder": stage.folder,
        "state": stage.state, "seconds": stage.seconds, "kind": cost.counts_as(stage.record),
    }  # fmt: skip


def _state(stages, domain, domains):
    """Whether all that a domain's report rests on is done, and how many stages are how far."""
    own = next((stage.number for stage in stages if stage.folder == f"report/{domain}"), None)
    others = {name for other in domains if other != domain for name in (other, f"{other}-scratch")}
    needed = [
        stage
        for stage in stages
        if not stage.folder.startswith("report/")
        and (own is None or stage.number <= own)
        and not others & set(stage.folder.split("/"))
    ]
    states = {}
    for stage in needed:
        states[stage.state] = states.get(stage.state, 0) + 1
    return {"finished": all(stage.state == DONE for stage in needed), "states": states}


def _seconds(stages):
    found = {"training": 0.0, "decoding": 0.0, "other": 0.0}
    for stage in stages:
        if stage.seconds is not None:
            found[cost.counts_as(stage.record)] += stage.seconds
    return {**found, "all": sum(found.values())}


def _curves(run, domain, rows):
    found = {}
    for row in rows:
        curve = run.curve(row["model"])
        if curve is None:
            if row["state"] != TO_COME:
                run.note(f"{row['model']} has no training log, so it has no learning curve")
            continue
        if not curve.validations and not curve.training:
            run.note(f"the training log of {row['model']} holds no scores (yet)")
            continue
        found[row["model"]] = {
            "name": row["name"],
            "group": row["group"],
            "dev": GENERAL if row["general_domain"] else domain,
            "kept": row["updates"],
            "validations": curve.validations,
            "training": curve.training,
        }
    return found


def _ledger(folder, ledger):
    """A cleaning's or a selection's ledger in one shape."""
    steps = [
        {
            "step": str(step.get("step", "")),
            "read": step.get("read", 0),
            "dropped": step.get("dropped", step.get("rejected", 0)),
            "repaired": step.get("repaired", step.get("changed", 0)),
            "examples": step.get("examples", []),
        }
        for step in ledger["steps"]
    ]
    return {
        "folder": folder,
        "kind": "selection" if "pairs" in ledger else "cleaning",
        "read": ledger.get("read", 0),
        "kept": ledger.get("kept", 0),
        "pairs": ledger.get("pairs"),
        "steps": steps,
    }


def _indicators(rows):
    """Indicators of the beam's output on the domain's test set, as they are defined in order."""
    keys = list(INDICATORS)
    for row in rows:
        keys += [key for key in (_path(row, "in_domain", "indicators") or {}) if key not in keys]
    found = []
    for key in keys:
        known = INDICATORS.get(key)
        entries = {
            row["name"]: {**entry, "shown": _shown(entry.get("value"), known)}
            for row in rows
            if isinstance(entry := _path(row, "in_domain", "indicators", key), dict)
        }
        if entries:
            found.append(
                {
                    "key": key,
                    "title": known.title if known else key.replace("_", " "),
                    "definition": known and known.definition,
                    "source": known and known.paper,
                    "counts": known and known.counts,
                    "rows": entries,
                }
            )
    return found


def _shown(value, known):
    """The value of an indicator for people: a share, but of lengths a ratio."""
    if value is None:
        return "–"
    if known is None or known.counts == "characters":
        return f"{value:.2f}"
    return f"{100 * value:.1f} %"


def _sentences(run, domain, rows, groups, recommended):
    """The best and worst sentences of the recommended student, or None."""
    paths = run.test_set(domain)
    if not recommended or not paths:
        return None
    student = run.translations(domain, recommended["model"], domain)
    if student is None:
        return None
    teacher = groups.get(recommended["teacher"])
    if teacher:
        teacher = run.translations(domain, rows[teacher["rows"][0]]["model"], domain)
    try:
        return sentences.choose(
            paths["source"], paths["references"], student, teacher, run.target_lang
        )
    except ValueError as error:
        run.note(str(error))
        return None


def _started(run, records):
    """ISO time at which the run began: the plan tells when it was last gone on with."""
    begun = [
        datetime.fromisoformat(record["finished"]) - timedelta(seconds=record["seconds"])
        for record in records if record.get("finished") and record.get("seconds") is not None
    ]  # fmt: skip
    if not begun:
        return run.plan.get("started")
    first = min(begun).strftime("%Y-%m-%dT%H:%M:%SZ")
    return min(first, run.plan.get("started") or first)


def _provenance(run, domain, stages, rows, speed):
    records = [stage.record for stage in stages if stage.record]
    versions = {}
    for record in records:
        for name, version in record.get("versions", {}).items():
            versions.setdefault(name, [])
            if version not in versions[name]:
                versions[name].append(version)
    signatures = {}
    for row in rows:
        for mode in ("beam", "greedy"):
            for metric, entry in (_path(row, "in_domain", mode) or {}).items():
                if isinstance(entry, dict) and entry.get("signature"):
                    signatures.setdefault(metric, [])
                    if entry["signature"] not in signatures[metric]:
                        signatures[metric].append(entry["signature"])
    return {
        "command": run.plan.get("command", []),
        "started": _started(run, records),
        "finished": max((stage.finished for stage in stages if stage.finished), default=None),
        "versions": versions,
        "commits": sorted({record["commit"] for record in records if record.get("commit")}),
        "test_sets": _test_sets(run, domain),
        "signatures": signatures,
        "seeds": sorted({row["seed"] for row in rows}),
        "machine": {name: (speed or {}).get(name) for name in ("processor", "cores", "device")}
        if speed else None,
        "trainings": _trainings(run, rows),
    }  # fmt: skip


def _test_sets(run, domain):
    found = []
    for test_set in (domain, GENERAL):
        folder = run.work / "corpora" / test_set / "text"
        for lang in (run.source_lang, run.target_lang):
            try:
                path = find_text(folder, "test", lang)
            except (FileNotFoundError, ValueError):
                continue
            found.append(
                {"file": run.name_of(path), "lines": count_lines(path), "sha256": file_hash(path)}
            )
    return found


def _trainings(run, rows):
    """What was called to train each row's model."""
    found = {}
    for row in rows:
        record = run.read(run.work / row["model"] / RECORD) or {}
        path = run.work / row["model"] / "command.txt"
        fairseq = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if record.get("command") or fairseq:
            found[row["model"]] = {"stage": record.get("command", []), "fairseq": fairseq.strip()}
    return found
