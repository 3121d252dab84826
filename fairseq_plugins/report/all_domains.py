"""All domains of a run on one page, as data: the report.json of ``dad-report --all-domains``.

``find`` returns a dictionary of plain values:

  source_lang, target_lang, sizes, seeds
  domains       [{"name", "finished", "page": its report, relative to this one, or null,
                "recommended": name or null}]
  rows          [{"name", "cells": {domain: {"score", "interval", "deviation", "seeds",
                "recommended"}}}]: beam BLEU on each domain's test set
  steps         [{"words", "new", "old", "cells": {domain: comparison}}]; cells of domains where
                there is none are missing, here and below
  claims        [{"key", "size", "title", "paper", "cells": {domain: {"says", "why",
                "comparison"}}}]
  multi_domain  as steps: students of all domains against those of one
  advice        [{"key", "size", "cells": {domain: answer}}], see ``advice``
  signature     of BLEU
  problems      sentences
  verdict       [{"title", "text", "tone", "points"}]
"""

import os

from tabulate import tabulate

from fairseq_plugins.report import findings
from fairseq_plugins.report.advice import GAIN, NO_GAIN, QUESTIONS
from fairseq_plugins.report.comparisons import (
    NOT_TESTED,
    in_words,
    is_gain,
    is_loss,
    signed,
)
from fairseq_plugins.report.run import DONE, state_of
from fairseq_plugins.report.tables import with_interval
from fairseq_plugins.report.verdict import GOOD, PLAIN, WARNING, and_so_on

REPORT = "report"
ALL = "all"


def find(run, folder, progress=lambda: None):
    """Everything that the page of all domains says; see the module's docstring.

    Args:
        run: ``run.Run``.
        folder: where the page will lie; links to the domains' pages are relative to it.
        progress: called after each domain.
    """
    reports = {}
    for domain in run.domains:
        reports[domain] = _report_of(run, domain)
        progress()
    return gather(run, reports, folder)


def gather(run, reports, folder=None):
    """What ``find`` returns, of reports that are there.

    Args:
        run: ``run.Run``.
        reports: {domain: report.json}, one or more.
        folder: where the page will lie; None: no link to the domains' pages is wanted.
    """
    known = next(iter(reports.values()))
    found = {
        "source_lang": run.source_lang, "target_lang": run.target_lang, "sizes": run.sizes,
        "seeds": sorted({seed for report in reports.values()
                         for seed in report["provenance"]["seeds"]}),
        "domains": [
            {"name": domain, "finished": report["finished"],
             "page": _page(run, domain, folder) if folder else None,
             "recommended": report["recommended"] and report["recommended"]["name"]}
            for domain, report in reports.items()
        ],
        "rows": _rows(reports),
        "steps": _comparisons(reports, "steps"),
        "multi_domain": _comparisons(reports, "multi_domain"),
        "claims": _claims(reports),
        "advice": _advice(reports),
        "signature": _signature(known),
        "problems": [f"{domain}: {problem}" for domain, report in reports.items()
                     for problem in report["problems"]],
    }  # fmt: skip
    found["verdict"] = judge(found)
    return found


def _report_of(run, domain):
    """The report of a domain that its stage has made, else a new one."""
    folder = run.work / REPORT / domain
    if state_of(folder) == DONE and (record := run.read(folder / "report.json")):
        if "groups" in record:
            return record
    return findings.find(run, domain)


def _page(run, domain, folder):
    """Path of a domain's page, relative to ``folder``; None where there is none."""
    for name in (domain, f"{domain}-by-hand"):
        page = run.work / REPORT / name / "report.html"
        if page.exists():
            return os.path.relpath(page, folder)
    return None


def _rows(reports):
    rows = {}
    for domain, report in reports.items():
        chosen = report["recommended"] and report["recommended"]["name"]
        for group in report["groups"]:
            cells = rows.setdefault(group["name"], {})
            if group["in_domain"]:
                entry = group["in_domain"]["beam"]["bleu"]
                cells[domain] = {
                    **{name: entry[name] for name in ("score", "interval", "deviation")},
                    "seeds": len(group["seeds"]), "recommended": group["name"] == chosen,
                }  # fmt: skip
    return [{"name": name, "cells": cells} for name, cells in rows.items()]


def _comparisons(reports, kind):
    """Comparisons that domains have in common, told apart by their groups and words."""
    found = {}
    for domain, report in reports.items():
        for entry in report[kind]:
            key = entry.get("words", ""), entry["new"], entry["old"]
            found.setdefault(key, {})[domain] = entry
    return [
        {"words": words, "new": new, "old": old, "cells": cells}
        for (words, new, old), cells in found.items()
    ]


def _claims(reports):
    found = {}
    for domain, report in reports.items():
        for entry in report["claims"]:
            key = entry["key"], entry["size"]
            about = {name: entry[name] for name in ("key", "size", "title", "paper")}
            claim = found.setdefault(key, {**about, "cells": {}})
            if entry["main"]:
                claim["cells"][domain] = {
                    "says": entry["says"], "why": entry["why"], "comparison": entry["main"],
                }  # fmt: skip
    return [claim for claim in found.values() if claim["cells"]]


def _advice(reports):
    found = {}
    for domain, report in reports.items():
        for entry in report["advice"]:
            found.setdefault((entry["key"], entry["size"]), {})[domain] = entry["answer"]
    return [{"key": key, "size": size, "cells": cells} for (key, size), cells in found.items()]


def _signature(report):
    return next(
        (group["in_domain"]["beam"]["bleu"]["signature"] for group in report["groups"]
         if group["in_domain"]), None,
    )  # fmt: skip


# -- verdict -------------------------------------------------------------------------------


def judge(found):
    """Paragraphs of the verdict over domains; ``found`` as ``find`` makes it."""
    parts = [_unfinished(found), _to_ship(found)]
    parts += [_claim(found, claim) for claim in found["claims"]]
    parts += [_one_for_all(entry) for entry in found["multi_domain"]]
    parts.append(_advised(found))
    parts.append(
        _part("How sure this is", "Domains are not repetitions of one experiment: they share the "
              "general teacher, the general students and the vocabulary, so what is wrong with "
              "those is wrong in every domain. Each count above rests on one test set for each "
              "domain.")
    )  # fmt: skip
    return [part for part in parts if part]


def _part(title, text, tone=PLAIN, points=()):
    return {"title": title, "text": text, "tone": tone, "points": list(points)}


def _unfinished(found):
    waiting = [domain["name"] for domain in found["domains"] if not domain["finished"]]
    if not waiting:
        return None
    return _part(
        "This run is not finished",
        f"{and_so_on(waiting)}: what stands below is what there is so far.", WARNING,
    )  # fmt: skip


def _to_ship(found):
    chosen = {}
    for domain in found["domains"]:
        if domain["recommended"]:
            chosen.setdefault(domain["recommended"], []).append(domain["name"])
    if not chosen:
        return _part("Nothing to ship yet", "No student of any domain has been scored.", WARNING)
    told = [f"{name} for {and_so_on(domains)}" for name, domains in chosen.items()]
    title = f"Students to ship: {and_so_on(told)}"
    text = "Chosen by each domain's dev set; the pages of the domains name the rivals."
    return _part(title, text, GOOD if len(found["domains"]) == sum(map(len, chosen.values()))
                 else WARNING)  # fmt: skip


def _claim(found, claim):
    cells = claim["cells"]
    paid = [domain for domain, cell in cells.items() if is_gain(cell["comparison"])]
    title = f"{claim['title']} paid in {len(paid)} of {_domains(len(cells))}"
    by_says = {}
    for domain, cell in cells.items():
        by_says.setdefault(cell["says"], []).append(domain)
    told = [f"{says} in {and_so_on(domains)}" for says, domains in by_says.items()]
    text = f"That is, it brought a significant gain there. The paper: {claim['paper']}. "
    text += f"Here: {'; '.join(told)}."
    points = [
        f"{domain}, {cell['comparison']['old']} → {cell['comparison']['new']}: "
        f"{in_words(cell['comparison'])}" for domain, cell in cells.items()
    ]  # fmt: skip
    return _part(_of_size(found, claim, title), text, PLAIN, points)


def _one_for_all(entry):
    cells = entry["cells"]
    worse = [domain for domain, cell in cells.items() if is_loss(cell)]
    untested = [domain for domain, cell in cells.items() if cell["outcome"] == NOT_TESTED]
    good = len(cells) - len(worse) - len(untested)
    title = f"{entry['new']}, one student for all domains, is not worse than {entry['old']} in "
    title += f"{good} of {_domains(len(cells))}"
    text = f"Significantly worse in {and_so_on(worse)}." if worse else (
        "Not significantly worse anywhere, which is not yet to say that it is as good."
    )  # fmt: skip
    points = [f"{domain}: {in_words(cell)}" for domain, cell in cells.items()]
    return _part(title, text, PLAIN, points)


def _advised(found):
    questions = {question.key: question for question in QUESTIONS}
    points = []
    for entry in found["advice"]:
        question = questions[entry["key"]]
        for answer, (title, _) in ((GAIN, question.gain), (NO_GAIN, question.no_gain)):
            agreeing = [domain for domain, told in entry["cells"].items() if told == answer]
            if agreeing:
                points.append(f"{_of_size(found, entry, title)}: {and_so_on(agreeing)}.")
    if not points:
        return None
    return _part(
        "Advice for the next run", "By domain; the pages of the domains have evidence and "
        "threshold.", PLAIN, points,
    )  # fmt: skip


def _of_size(found, entry, title):
    return f"{title} ({entry['size']})" if len(found["sizes"]) > 1 and entry["size"] else title


def _domains(count):
    return f"{count} domain" if count == 1 else f"{count} domains"


# -- tables --------------------------------------------------------------------------------


def cells(found):
    """The table domain × configuration: a list of texts for each row, a dash where none is."""
    return [
        [row["name"], *(
            with_interval({"bleu": row["cells"].get(domain["name"])}, "bleu")
            for domain in found["domains"]
        )]
        for row in found["rows"]
    ]  # fmt: skip


def gains(entry, domains):
    """What a step bought in each domain: [(text, outcome)], ("–", "") where it is not known."""
    known = [entry["cells"].get(domain["name"]) for domain in domains]
    return [(signed(cell["difference"]), cell["outcome"]) if cell else ("–", "") for cell in known]


def as_text(found):
    """table.txt, which is printed, too."""
    names = [domain["name"] for domain in found["domains"]]
    table = tabulate(cells(found), ["BLEU", *names], tablefmt="simple", disable_numparse=True)
    lines = [table, ""]
    if found["steps"]:
        lines += ["What each step bought (BLEU, paired bootstrap):", ""]
        steps = [
            [f"{entry['words']} ({entry['old']} → {entry['new']})", *(" ".join(filter(None, cell))
                               for cell in gains(entry, found["domains"]))]
            for entry in found["steps"]
        ]  # fmt: skip
        lines += [tabulate(steps, ["step", *names], tablefmt="simple", disable_numparse=True), ""]
    lines += [part["title"] for part in found["verdict"]]
    lines += [f"Note: {problem}" for problem in found["problems"]]
    return "\n".join(lines) + "\n"
