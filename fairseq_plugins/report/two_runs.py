"""Two runs side by side, for one domain, as data: the report.json of ``dad-report --compare``.

``find`` returns a dictionary of plain values:

  domain, runs      ["A", "B"]: the folders as given; A is the first
  finished          [bool, bool]
  same_test         {"in_domain": bool, "general": bool}: whether the test sets are the same bytes
  settings          [{"folder", "words"}]: what differs between the command lines of a stage of both
  only              [[folders], [folders]]: stages that one of them has
  best              the recommended student of each run: {"names", "a", "b", "comparison"}, or
                    null
  rows              groups of both: [{"name", "label", "kind", "a", "b", "comparison" (or null),
                    "general", "speed", "bytes"}]; a and b are beam BLEU with interval and
                    deviation over the seeds, the last three pairs of values
  versions          [{"name", "a", "b"}]: packages and commit that differ
  problems          sentences
  verdict           [{"title", "text", "tone", "points"}]
"""

from tabulate import tabulate

from data_prep.pipeline.stage import difference
from fairseq_plugins.evaluation.comparison import compare
from fairseq_plugins.report import findings
from fairseq_plugins.report.comparisons import (
    NOT_TESTED,
    RULE,
    SIGNIFICANT,
    bleu,
    in_words,
    over_seeds,
    p_cell,
    untested,
)
from fairseq_plugins.report.findings import without_nan
from fairseq_plugins.report.run import GENERAL, file_hash
from fairseq_plugins.report.tables import with_interval
from fairseq_plugins.report.verdict import GOOD, PLAIN, WARNING

FOLLOWING = ("exported/", "scores/", "speed/", "report/", "shipped/")
BOTH = ("in_domain", "general")


def find(first, second, domain):
    """Everything that a comparison of two runs says; see the module's docstring.

    Args:
        first, second: ``run.Run``; differences are what the second gains.
        domain: one that both have.
    """
    runs = [first, second]
    reports = [findings.find(run, domain) for run in runs]
    same_test = {
        place: _same_test(runs, name) for place, name in zip(BOTH, (domain, GENERAL), strict=True)
    }
    problems = [
        f"{run.work}: {sentence}"
        for run, report in zip(runs, reports, strict=True)
        for sentence in report["problems"]
    ]
    for place, name in zip(BOTH, (domain, GENERAL), strict=True):
        if not same_test[place]:
            problems.append(
                f"the test sets {name} of the two runs are not the same text, so their scores are "
                "not compared"
            )
    rows = _rows(runs, reports, domain, same_test, problems)
    found = {
        "domain": domain,
        "source_lang": first.source_lang, "target_lang": first.target_lang,
        "runs": [str(run.work) for run in runs],
        "finished": [report["finished"] for report in reports],
        "best": _best(runs, reports, domain, same_test, problems),
        "same_test": same_test,
        **_settings(runs),
        "rows": rows,
        "versions": _versions(reports),
        "processors": [(report["speed"] or {}).get("processor") for report in reports],
        "seconds": [report["seconds"] for report in reports],
        "problems": problems,
    }  # fmt: skip
    found["verdict"] = _verdict(found, reports)
    return without_nan(found)


def _same_test(runs, name):
    paths = [run.test_set(name) for run in runs]
    if None in paths:
        return False
    return all(
        file_hash(paths[0][side]) == file_hash(paths[1][side]) for side in ("source", "references")
    )


def _rows(runs, reports, domain, same_test, problems):
    """Groups that both have under the same name, then those of one, in the order of the tables."""
    by_name = [{group["name"]: group for group in report["groups"]} for report in reports]
    names = [*by_name[0], *(name for name in by_name[1] if name not in by_name[0])]
    found = []
    for name in names:
        pair = [groups.get(name) for groups in by_name]
        known = next(group for group in pair if group)
        scores = [_beam(group) for group in pair]
        comparison = None
        if all(scores) and same_test["in_domain"]:
            comparison = _compared(runs, reports, pair, domain, problems)
        found.append({
            "name": name, "label": known["label"], "kind": known["kind"],
            "a": scores[0], "b": scores[1], "comparison": comparison,
            "general": [group and bleu(group, "general") for group in pair],
            "speed": [_rate(group) for group in pair],
            "bytes": [group and group["bytes"] for group in pair],
        })  # fmt: skip
    return found


def _best(runs, reports, domain, same_test, problems):
    """The recommended student of the second run against that of the first."""
    pair = []
    for report in reports:
        name = (report["recommended"] or {}).get("name")
        pair.append(next((group for group in report["groups"] if group["name"] == name), None))
    if None in pair or not same_test["in_domain"]:
        return None
    comparison = _compared(runs, reports, pair, domain, problems)
    return comparison and {
        "names": [group["name"] for group in pair], "a": _beam(pair[0]), "b": _beam(pair[1]),
        "comparison": comparison,
    }  # fmt: skip


def _compared(runs, reports, pair, domain, problems):
    """What the second of two groups gains over the first, seed by seed; None: none in common."""
    rows = [
        {row["seed"]: row for row in report["rows"] if row["name"] in group["rows"]
         and bleu(row) is not None}
        for report, group in zip(reports, pair, strict=True)
    ]  # fmt: skip
    found = [
        {"seed": seed, "new": new["name"], "old": rows[0][seed]["name"],
         **_tested(runs, (rows[0][seed], new), domain, problems)}
        for seed, new in rows[1].items() if seed in rows[0]
    ]  # fmt: skip
    if not found:
        return None
    return {"new": pair[1]["name"], "old": pair[0]["name"], **over_seeds(found)}


def _tested(runs, pair, domain, problems):
    """The difference of two models on test sets that are the same."""
    files = [
        run.translations(domain, row["model"], domain)
        for run, row in zip(runs, pair, strict=True)
    ]
    if all(files):
        try:
            references = runs[0].test_set(domain)["references"]
            return compare(files[1], files[0], references, runs[0].target_lang)
        except ValueError as error:
            problems.append(str(error))
    return untested(bleu(pair[1]) - bleu(pair[0]))


def _beam(group):
    if group is None or bleu(group) is None:
        return None
    entry = group["in_domain"]["beam"]["bleu"]
    return {name: entry[name] for name in ("score", "interval", "deviation")}


def _rate(row):
    return (((row or {}).get("speed") or {}).get("beam") or {}).get("sentences_per_second")


def _settings(runs):
    """Command lines that differ, and stages that one run alone has; not of what follows from it."""
    stages = [
        {stage.folder: stage for stage in run.stages() if not stage.folder.startswith(FOLLOWING)}
        for run in runs
    ]
    settings = []
    for folder, stage in stages[0].items():
        other = stages[1].get(folder)
        if other and stage.command and other.command and stage.command != other.command:
            settings.append({"folder": folder, "words": difference(stage.command, other.command)})
    only = [
        [folder for folder in own if folder not in other]
        for own, other in (stages, reversed(stages))
    ]
    return {"settings": settings, "only": only}


def _versions(reports):
    known = [
        {**report["provenance"]["versions"], "commit": report["provenance"]["commits"]}
        for report in reports
    ]
    return [
        {"name": name, "a": ", ".join(known[0].get(name, [])),
         "b": ", ".join(known[1].get(name, []))}
        for name in dict.fromkeys([*known[0], *known[1]])
        if known[0].get(name, []) != known[1].get(name, [])
    ]  # fmt: skip


def _verdict(found, reports):
    parts = []
    a, b = found["runs"]
    waiting = [run for run, done in zip(found["runs"], found["finished"], strict=True) if not done]
    if waiting:
        parts.append(
            {"title": "Not finished", "tone": WARNING, "points": [],
             "text": f"{' and '.join(waiting)}: what stands below is what there is so far."}
        )  # fmt: skip
    best = found["best"]
    compared = [
        row for row in found["rows"]
        if row["kind"] == "student" and row["comparison"]
    ]  # fmt: skip
    if not found["same_test"]["in_domain"]:
        title, tone = "The scores do not compare", WARNING
        text = (
            f"The test sets {found['domain']} of the two runs are not the same text. Scores stand "
            "side by side below, but their differences mean nothing."
        )
    elif best is None:
        title, tone = "No students to compare", WARNING
        text = "At least one of the runs has no student with scores, or they share no seed."
    else:
        title, tone = _better(best, a, b)
        text = (
            f"The student to ship of A, {best['names'][0]}, has {best['a']['score']:.1f} BLEU, "
            f"that of B, {best['names'][1]}, {best['b']['score']:.1f}: "
            f"{in_words(best['comparison'])}."
        )
    points = [f"{row['name']} in both: {in_words(row['comparison'])}" for row in compared]
    parts.append({"title": title, "text": text, "tone": tone, "points": points})
    parts.append(_what_differs(found))
    parts.append(
        {"title": "How sure this is", "tone": PLAIN, "points": [], "text": _certainty(compared)}
    )
    return parts


def _better(best, a, b):
    """Heading and tone for the difference between the recommended students of two runs."""
    comparison = best["comparison"]
    if comparison["outcome"] == NOT_TESTED:
        return "A difference that was not tested", WARNING
    if comparison["outcome"] != SIGNIFICANT:
        return "No difference that could be told from noise", PLAIN
    return f"{b if comparison['difference'] > 0 else a} is better", GOOD


def _certainty(compared):
    if max((len(row["comparison"]["seeds"]) for row in compared), default=1) > 1:
        return RULE
    return (
        "A significant difference tells these two trainings apart, not the settings behind them: "
        "one run is one draw, and another seed moves scores, too. Repeat both with other seeds "
        "before you build on a small difference."
    )


def _what_differs(found):
    changed = [entry["folder"] for entry in found["settings"]]
    trained = [folder for folder in changed if folder.startswith(("teacher/", "student/"))]
    if not changed and not any(found["only"]):
        text = "Nothing in the command lines of their stages."
    else:
        text = f"The command lines of {len(changed)} stages that both have, {len(trained)} of them "
        text += "trainings"
        alone = sum(map(len, found["only"]))
        text += f"; {alone} stages are in one run alone." if alone else "."
    processors = found["processors"]
    if all(processors) and processors[0] != processors[1]:
        text += f" Speed was measured on {processors[0]} and {processors[1]}: it does not compare."
    elif all(processors):
        text += " Speed was measured at different times, so small differences mean nothing."
    return {"title": "What differs", "text": text, "tone": PLAIN, "points": []}


def as_text(found):
    """table.txt, which is printed, too."""
    lines = [f"A: {found['runs'][0]}", f"B: {found['runs'][1]}", ""]
    lines.append(tabulate(cells(found), headers(found), tablefmt="simple", disable_numparse=True))
    lines.append("")
    for part in found["verdict"]:
        lines.append(f"{part['title']}. {part['text']}")
    lines += [f"Note: {problem}" for problem in found["problems"]]
    return "\n".join(lines) + "\n"


def headers(found):
    """Names of the columns."""
    names = ["model", f"BLEU {found['domain']}, A", "B", "B − A", "p", "verdict",
             "BLEU general, A", "B"]  # fmt: skip
    if any(any(row["speed"]) for row in found["rows"]):
        names += ["sentences/s, A", "B"]
    return names


def cells(found):
    """A list of texts for each row; what is not known is a dash."""
    lines = []
    speed = any(any(row["speed"]) for row in found["rows"])
    for row in found["rows"]:
        line = [row["name"]]
        line += [with_interval({"bleu": row[run]}, "bleu") for run in "ab"]
        found = row["comparison"]
        line.append(f"{found['difference']:+.1f}" if found else "–")
        line.append(p_cell(found) if found else "–")
        line.append(found["outcome"] if found else "–")
        line += ["–" if value is None else f"{value:.1f}" for value in row["general"]]
        if speed:
            line += ["–" if value is None else f"{value:,.0f}" for value in row["speed"]]
        lines.append(line)
    return lines
