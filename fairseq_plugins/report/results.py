"""RESULTS.md: what finished runs brought, written by the program that measured nothing by hand.

``write`` makes the file from run folders; ``check`` tells whether anybody has changed it since.
All above the line with the SHA-256 is generated: the same runs give the same bytes. What stands
below it, under the heading ``## Remarks``, is for people and is kept.

No path of a machine may get into the file: a run's folder is ``$WORK``, this repository is where
the reader stands, and other places have the names that ``--place`` gives them.
"""

import hashlib
import re
import shlex
from pathlib import Path

from tqdm import tqdm

from data_prep.command import bar_settings
from data_prep.files import count_lines, find_text, write_whole
from fairseq_plugins.report import all_domains, findings, page, tables
from fairseq_plugins.report.comparisons import p_values, signed, spread
from fairseq_plugins.report.run import chosen

REMARKS = "## Remarks"
NO_REMARKS = "<!-- What you write under this heading stays when the file is written anew. -->"
WORK = "WORK"
TRAININGS = {  # by kind of model and whether it has seen no text of the domain
    ("teacher", True): "general teacher",
    ("teacher", False): "in-domain teacher",
    ("general student", True): "general student",
    ("student", False): "in-domain student",
}

_MARK = re.compile(r"<!-- SHA-256 of all above, which dad-report wrote: ([0-9a-f]{64}) -->")
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
# a path from the root or from a home, where a word begins; 'sentences/s' is none
_ABSOLUTE = re.compile(r"""(?:^|(?<=[\s='"`(:,;]))(?:~?/[\w.+~-]+(?:/[\w.+~-]*)*|[A-Za-z]:\\\S*)""")


def write(path, runs, labels, places=None, domain=None):
    """Write RESULTS.md of finished runs, and return its text.

    Args:
        path: the file; remarks in an older one are kept.
        runs: list of ``run.Run``.
        labels: for each run a sentence of the person who ran it: what it is, and what it is not.
        places: {NAME: path}, what is shown as $NAME.
        domain: one domain, or several joined by commas; all by default.

    Raises:
        ValueError: a run is not finished, or a path of this machine would remain.
        FileExistsError: the file was not written by this command, or has been changed since.
    """
    path = Path(path)
    remarks = kept_remarks(path)
    refuse_paths("\n".join([*labels, *_commands(runs, places or {})]), path)  # before the work
    text = generated(runs, labels, places or {}, domain, path)
    refuse_paths(text, path)
    whole = f"{text}{mark(text)}\n\n{remarks}"
    with write_whole(path) as out:
        out.write(whole)
    return whole


def check(path):
    """Whether the generated part of a file is as it was written; None where it has none.

    Raises:
        FileNotFoundError: there is no such file.
    """
    parts = _parts(path)
    return None if parts is None else _is_whole(*parts)


def mark(text):
    """The line that closes the generated part."""
    return f"<!-- SHA-256 of all above, which dad-report wrote: {_sha256(text)} -->"


def kept_remarks(path):
    """What people have written in an older file, with its heading.

    Raises:
        FileExistsError: not all above the remarks is as dad-report wrote it.
    """
    if not path.exists():
        return f"{REMARKS}\n\n{NO_REMARKS}\n"
    parts = _parts(path)
    if parts is None:
        raise FileExistsError(
            f"{path} was not written by dad-report --results, so it is left alone; move it away, "
            f"write the new one, and put what you want to keep under {REMARKS!r} at its end"
        )
    if not _is_whole(*parts):
        raise FileExistsError(
            f"{path} was changed above {REMARKS!r}, and that would be lost; move what you wrote "
            f"below that heading, and undo the rest (git diff {path.name})"
        )
    return parts[2].lstrip("\n")


def _parts(path):
    """(generated text, its SHA-256 as written, what follows), or None."""
    text = Path(path).read_bytes().decode("utf-8", errors="replace")  # no newline is translated
    found = list(_MARK.finditer(text))
    if not found:
        return None
    first = found[0]
    return text[: first.start()], first[1], text[first.end() :]


def _is_whole(text, sha256, rest):
    rest = rest.lstrip("\n")
    return _sha256(text) == sha256 and (rest == REMARKS or rest.startswith(f"{REMARKS}\n"))


def _sha256(text):
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


# -- paths ---------------------------------------------------------------------------------


def read_places(entries):
    """{NAME: path} of NAME=PATH.

    Raises:
        ValueError: an entry has another form, or a name is taken.
    """
    found = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not (equals and path.startswith("/") and _NAME.fullmatch(name)):
            raise ValueError(
                f"--place takes NAME=PATH, NAME in capitals and PATH from the root, not {entry!r}"
            )
        if name in found or re.fullmatch(rf"{WORK}\d*", name):
            raise ValueError(f"--place {name} is taken; choose another name")
        found[name] = path.rstrip("/")
    return found


def portable(words, places):
    """A command line for a shell anywhere: paths as $NAME, recipes from the repository's root.

    Args:
        words: of the command, the recipe first.
        places: {NAME: path}; of two that fit the longer path is taken. ``WORK...`` stands for
            whatever follows --work.
    """
    recipe = re.fullmatch(r"(.*?)(recipes/.+\.sh)", words[0])
    if recipe:  # the checkout that it was run from is where the reader stands
        words = ["bash", recipe[2], *(word.replace(recipe[1], "") if recipe[1].startswith("/")
                                      else word for word in words[1:])]  # fmt: skip
    found = [_replaced(word, places) for word in words]
    works = [name for name in places if name.startswith(WORK)]
    for place, word in enumerate(found[:-1]):
        if word == "--work" and works:
            found[place + 1] = f"${works[0]}"
    return " ".join(quoted(word, places) for word in found)


def _replaced(word, places):
    for name, path in sorted(places.items(), key=lambda item: (-len(item[1]), item[0])):
        word = re.sub(rf"(^|(?<=[=:,])){re.escape(path)}(?=$|[/:,])", lambda _: f"${name}", word)
    return word


def quoted(word, places):
    """A word for a shell, in which $NAME of a place still means that place."""
    if not any(re.search(rf"\${name}\b", word) for name in places):
        return shlex.quote(word)
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + re.sub(r'(["`\\])', r"\\\1", word) + '"'


def refuse_paths(text, path):
    """Refuse a text that holds a path of a machine.

    Raises:
        ValueError: names the paths, and what to pass.
    """
    found = sorted({match[0] for match in _ABSOLUTE.finditer(text)})
    if found:
        raise ValueError(
            f"{path} would hold paths of this machine: {', '.join(found)}; say what they are with "
            f"--place, for example --place CORPORA={found[0]}"
        )


# -- the generated part --------------------------------------------------------------------


def generated(runs, labels, places, domain, path):
    """The text above the mark."""
    names, labels = _names(runs), [" ".join(label.split()) for label in labels]
    again = ["dad-report", "--results", _inside_repository(path)]
    for name, label in zip(names, labels, strict=True):
        again += ["--work", f"${name}", "--label", shlex.quote(label)]
    for name in places:
        again += ["--place", f"{name}=${name}"]
    if domain:
        again += ["--domain", domain]
    sections = [
        _section(run, label, name, command, domain)
        for run, label, name, command in zip(
            runs, labels, names, _commands(runs, places), strict=True
        )
    ]
    pairs = dict.fromkeys(f"{run.source_lang}-{run.target_lang}" for run in runs)
    return page.as_results(
        {
            "pairs": list(pairs), "sections": sections, "remarks": REMARKS,
            "again": " ".join(again),
        }
    )  # fmt: skip


def _names(runs):
    """What stands for the folder of each run."""
    return [WORK if len(runs) == 1 else f"{WORK}{number}" for number in range(1, len(runs) + 1)]


def _commands(runs, places):
    """The command that each run can be redone by, as a reader gives it."""
    return [
        portable(run.plan["command"], {**places, name: str(run.work.resolve())})
        if run.plan.get("command") else "# the plan does not tell the command"
        for run, name in zip(runs, _names(runs), strict=True)
    ]  # fmt: skip


def _inside_repository(path):
    """``recipes/de-en/RESULTS.md`` of a path that ends so, else the name alone."""
    path = Path(path).resolve()
    names = path.parts
    if "recipes" in names:
        return "/".join(names[len(names) - 1 - names[::-1].index("recipes") :])
    return path.name


def _section(run, label, name, command, domain):
    """What the template needs of one run.

    Raises:
        ValueError: it is not finished, or has no such domain.
    """
    domains = chosen(run.domains, domain, run.work)
    with tqdm(desc=f"{run.work}: comparing", unit=" pairs", **bar_settings()) as bar:
        reports = [findings.find(run, name, progress=bar.update) for name in domains]
    for report in reports:
        if not report["finished"]:
            states = report["states"]
            raise ValueError(
                f"{run.work} is not finished: of {report['domain']} {states.get('done', 0)} of "
                f"{sum(states.values())} stages are done; start its recipe again, or take a "
                "finished domain with --domain"
            )
    stages = run.stages()
    provenance = reports[0]["provenance"]
    return {
        "label": label,
        "domains": domains,
        "sizes": run.sizes,
        "models": _models(reports),
        "corpora": _corpora(run, domains),
        "taught": _taught(reports[0]),
        "budgets": _budgets(reports),
        "together": _together(run, domains, reports),
        "parts": [_domain(report) for report in reports],
        "claims": _claims(reports),
        "cost": reports[0]["cost"],
        "machines": machines(stages),
        "seeds": sorted({row["seed"] for report in reports for row in report["rows"]}),
        "versions": provenance["versions"],
        "commits": provenance["commits"],
        "started": provenance["started"],
        "finished": provenance["finished"],
        "work": name,
        "command": command,
        "problems": list(dict.fromkeys(
            problem.replace(f"{run.work}/", "")
            for report in reports for problem in report["problems"]
        )),
    }  # fmt: skip


def _together(run, domains, reports):
    """What the template needs of all domains; None where there is one."""
    if len(domains) == 1:
        return None
    return page.over_domains(all_domains.gather(run, dict(zip(domains, reports, strict=True))))


def _models(reports):
    """[(size, what such models are, parameters)], teachers first."""
    found = {}
    for report in reports:
        for group in report["groups"]:
            if group["parameters"]:
                what = "teacher" if group["kind"] == "teacher" else "student"
                found.setdefault((group["size"], what), group["parameters"])
    return [
        (size, what, parameters)
        for (size, what), parameters in sorted(found.items(), key=lambda item: -item[1])
    ]


def _corpora(run, domains):
    """[{"name", "read", "kept", "dev", "test"}]: pairs of each corpus; None: not known."""
    ledgers = run.ledgers()
    found = []
    for name in (findings.GENERAL, *domains):
        folder = run.work / "corpora" / name / "text"
        ledger = ledgers.get(f"corpora/{name}/text") or {}
        found.append(
            {"name": name, "read": ledger.get("read"), "kept": ledger.get("kept"),
             "dev": _lines(folder, "dev", run), "test": _lines(folder, "test", run)}
        )  # fmt: skip
    return found


def _lines(folder, split, run):
    try:
        return count_lines(find_text(folder, split, run.target_lang))
    except (FileNotFoundError, ValueError):
        return None


def _taught(report):
    """[(folder, pairs)] of what teachers translated for students."""
    return [
        (ledger["folder"].removesuffix("/text"), ledger["kept"])
        for ledger in report["ledgers"]
        if ledger["kind"] == "selection"
    ]


def _budgets(reports):
    """[{"what", "models", "updates", "kept", "tokens"}]: least and most over the trainings."""
    found, seen = {}, set()
    for report in reports:
        for row in report["rows"]:
            curve = report["curves"].get(row["model"])
            if curve is None or row["model"] in seen:
                continue
            seen.add(row["model"])
            what = TRAININGS[row["kind"], row["general_domain"]]
            updates = [point["update"] for point in (*curve["validations"], *curve["training"])]
            entry = found.setdefault(what, {"updates": [], "kept": [], "tokens": []})
            entry["updates"].append(max(updates, default=None))
            entry["kept"].append(row["updates"])
            entry["tokens"].append(target_tokens(curve))
    return [
        {"what": what, "models": len(found[what]["updates"]),
         **{name: _range(values) for name, values in found[what].items()}}
        for what in TRAININGS.values() if what in found
    ]  # fmt: skip


def target_tokens(curve):
    """Target tokens that a training has seen, as far as its log tells them; None: not at all.

    A line of the log tells the mean tokens in an update ("wpb") since the line before it; after
    the last line updates are taken to be like the ones before.
    """
    known = [point for point in curve["training"] if "wpb" in point]
    if not known:
        return None
    last = max(point["update"] for point in (*curve["validations"], *known))
    ends = [point["update"] for point in known[:-1]] + [last]
    begins = [0, *ends[:-1]]
    return sum(
        point["wpb"] * (end - begin)
        for point, begin, end in zip(known, begins, ends, strict=True)
    )


def _range(values):
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def _domain(report):
    """What the template needs of one domain."""
    shown = [
        {**part, "points": [] if part["title"] == "What each step bought" else part["points"]}
        for part in report["verdict"]
    ]
    return {
        "name": report["domain"],
        "headers": tables.headers(report), "cells": tables.cells(report),
        "seeds": _each_seed(report) if tables.has_seeds(report) else [],
        "steps": [{**step, "p": p_values(step), "spread": spread(step),
                   "shown": signed(step["difference"])} for step in report["steps"]],
        "verdict": shown,
        "notes": tables.notes(report),
        "test_sets": report["provenance"]["test_sets"],
    }  # fmt: skip


def _each_seed(report):
    """[(group, mean and deviation, [(seed, BLEU)])] of models that have several seeds."""
    rows = {row["name"]: row for row in report["rows"]}
    found = []
    for group in report["groups"]:
        if len(group["rows"]) > 1 and group["in_domain"]:
            scores = [
                (rows[name]["seed"], tables.mode_of(rows[name], "beam")["bleu"]["score"])
                for name in group["rows"]
                if rows[name]["in_domain"]
            ]
            mean = tables.mode_of(group, "beam")["bleu"]
            deviation = mean.get("deviation")
            told = f" ± {deviation:.1f}" if deviation is not None else ""
            found.append((group["name"], f"{mean['score']:.1f}{told}", scores))
    return found


def _claims(reports):
    """[{"title", "paper", "domain", "size", "main", "shown", "says", "why"}] that can be told."""
    return [
        {**claim, "domain": report["domain"], "shown": signed(claim["main"]["difference"]),
         "p": p_values(claim["main"])}
        for report in reports for claim in report["claims"] if claim["main"]
    ]  # fmt: skip


def machines(stages):
    """[(machine in words, {title of stages: how many}, stages)], of which most ran on first."""
    found = {}
    for stage in stages:
        if stage.record:
            told = _machine(stage.record.get("machine"))
            titles = found.setdefault(told, {})
            titles[stage.title] = titles.get(stage.title, 0) + 1
    every = [(told, titles, sum(titles.values())) for told, titles in found.items()]
    return sorted(every, key=lambda entry: (-entry[2], entry[0]))


def _machine(record):
    if not record:
        return "a machine that was not recorded"
    told = f"{record.get('cores', '?')} cores of {record.get('cpu') or 'an unknown processor'}"
    if record.get("memory_bytes"):
        told += f", {record['memory_bytes'] / 2**30:.0f} GiB of memory"
    gpus = record.get("gpus") or []
    counted = {name: gpus.count(name) for name in gpus}
    listed = [f"{count} × {name}" if count > 1 else name for name, count in counted.items()]
    return f"{told}, {' and '.join(listed) if listed else 'no GPU'}"
