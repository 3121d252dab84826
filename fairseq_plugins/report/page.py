"""The report as one HTML file, and as Markdown: templates filled with the same data.

The HTML needs nothing from outside: style and figures are in it, there is no script, and a content
security policy forbids everything else. All text is escaped.
"""

import re
import shlex
from pathlib import Path

import jinja2

from data_prep.pipeline import cost
from data_prep.pipeline.stage import duration
from fairseq_plugins.report import all_domains, comparisons, figures, tables, two_runs

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN_SPECIAL = set("\\`*_[]<>|~$&")


def as_html(report):
    """report.html of what ``findings.find`` has gathered."""
    pictures = {
        "front": figures.front(report),
        "curves": figures.curves(report),
        "losses": figures.curves(report, "loss"),
        "forgetting": figures.forgetting(report),
    }
    return _environment().get_template("run.html").render(**_context(report), figures=pictures)


def as_markdown(report):
    """report.md of what ``findings.find`` has gathered."""
    return _environment().get_template("run.md").render(**_context(report))


def as_results(found):
    """The generated part of RESULTS.md, see ``results``; blank lines never follow each other."""
    text = _environment().get_template("results.md").render(**found)
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n\n"


def difference_as_html(comparison):
    """report.html of what ``two_runs.find`` has gathered."""
    return _environment().get_template("two_runs.html").render(
        c=comparison, headers=two_runs.headers(comparison), cells=two_runs.cells(comparison)
    )


def difference_as_markdown(comparison):
    """report.md of what ``two_runs.find`` has gathered."""
    return _environment().get_template("two_runs.md").render(
        c=comparison, headers=two_runs.headers(comparison), cells=two_runs.cells(comparison)
    )


def all_domains_as_html(found):
    """report.html of what ``all_domains.find`` has gathered."""
    return _environment().get_template("all_domains.html").render(**over_domains(found))


def all_domains_as_markdown(found):
    """report.md of what ``all_domains.find`` has gathered."""
    return _environment().get_template("all_domains.md").render(**over_domains(found))


def over_domains(found):
    """What a template about all domains needs of what ``all_domains`` has gathered."""
    return {"a": found, "cells": all_domains.cells(found), "gains": all_domains.gains}


def markdown_text(text):
    """Text as Markdown shows it literally, on one line."""
    line = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in MARKDOWN_SPECIAL else sign for sign in line)


def tie(text):
    """Text in which numbers stay on the line of their unit or sign."""
    return re.sub(r"(?<=\d) (?=[%×±]|BLEU|MB)|(?<=[±=×]) (?=\d)|(?<=\bp) (?==)", "\u00a0", text)


def _context(report):
    return {
        "r": report,
        "headers": tables.headers(report),
        "cells": tables.cells(report),
        # on a phone what is first is seen: scores, then sizes, words last
        "order": [0, *range(3, len(tables.headers(report))), 2, 1],
        "notes": tables.notes(report),
        "several_seeds": tables.has_seeds(report),
        "stage_groups": _groups(report["stages"]),
        "command": shlex.join(report["provenance"]["command"]),
    }


def _groups(stages):
    """[{"number", "title", "seconds" by kind, "states"}]: stages of the same number together."""
    groups = []
    for stage in stages:
        if not groups or groups[-1]["number"] != stage["number"]:
            groups.append(
                {"number": stage["number"], "title": stage["title"], "states": {},
                 "seconds": {"training": 0.0, "decoding": 0.0, "other": 0.0}}
            )  # fmt: skip
        group = groups[-1]
        group["seconds"][stage["kind"]] += stage["seconds"] or 0
        group["states"][stage["state"]] = group["states"].get(stage["state"], 0) + 1
    return groups


def _environment():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(
        duration=duration, md=markdown_text, shell=shlex.join, signed=comparisons.signed, tie=tie,
        p=comparisons.p_cell, share=cost.share, tone=comparisons.tone,
    )  # fmt: skip
    environment.globals["style"] = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment
