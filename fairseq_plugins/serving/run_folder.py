"""Which models of a recipe's work folder are worth seeing side by side."""

from fairseq_plugins.generation.models import EXPORTED_WEIGHTS
from fairseq_plugins.report.choice import DEV, choose, choose_row
from fairseq_plugins.report.groups import grouped
from fairseq_plugins.report.run import open_run


def models_of_run(work, domain=None, say=lambda text: None):
    """(name, folder, label) of the run's teacher, its general student and its best student.

    The teacher is the adapted one, else the general one; the general student is the last of the
    table, which learnt from the teacher where there is one that did; the best student of the
    domain is the one that the dev set chooses, as in the report, or the last of the table while
    none has a dev score.

    Args:
        work: work folder of a recipe, with ``plan/`` and ``exported/``.
        domain: name of a domain; None: the only one.
        say: called with a sentence on what was chosen, or is missing.

    Raises:
        FileNotFoundError: there is no run, or none of these models was exported yet.
        ValueError: the domain is unknown or has to be named, or the plan is missing or damaged.
    """
    run = open_run(work)
    domain = _domain(run, domain)
    rows = run.rows(domain)
    exported = [row for row in rows if (_folder(run, row) / EXPORTED_WEIGHTS).is_file()]

    def of(kind, value):
        return [row for row in exported if getattr(row, kind) == value]

    teachers = of("configuration", "adapted-teacher") or of("configuration", "teacher")
    found = {
        "teacher": teachers[:1],
        "general student": of("kind", "general student")[-1:],
        f"student of {domain}": _best(run, of("kind", "student"), domain, say),
    }
    missing = [what for what, rows in found.items() if not rows]
    chosen = [row for rows in found.values() for row in rows]
    if not chosen:
        raise FileNotFoundError(
            f"{run.work / 'exported'} holds none of the models of {domain}; they are exported when "
            f"they are scored, near the end of the run: run the recipe on"
        )
    if missing:
        say(f"{run.work} has no exported {' and no '.join(missing)} yet")
    return [(_name(row), _folder(run, row), row.label) for row in chosen]


def _domain(run, domain):
    names = sorted(run.domains)
    if domain is None and len(names) > 1:
        raise ValueError(
            f"{run.work} has several domains; choose with --domain: {', '.join(names)}"
        )
    if domain is not None and domain not in names:
        raise ValueError(f"{run.work} has no domain {domain!r}; there are {', '.join(names)}")
    return domain or names[0]


def _folder(run, row):
    return run.work / "exported" / row.model


def _best(run, students, domain, say):
    rows = [
        {"name": student.name, "group": student.group, "size": student.size, "seed": student.seed,
         "state": "exported", "dev": run.dev(student), "general": None,
         "in_domain": ((student.scores or {}).get("test_sets") or {}).get(domain)}
        for student in students
    ]  # fmt: skip
    groups = grouped(rows)
    best = choose(list(groups.values()))
    if best is None:
        return students[-1:]
    members = [row for row in rows if row["group"] == best["name"]]
    name = choose_row(members)["name"]
    (chosen,) = [student for student in students if student.name == name]
    if len(students) > 1 and best["by"] == DEV:
        say(f"{_name(chosen)} has the highest dev BLEU of {len(groups)} students of {domain}: "
            f"{best['dev']:.1f}")  # fmt: skip
    elif len(students) > 1:
        say(f"no dev BLEU is known, so the test set chose: {_name(chosen)} has the highest BLEU of "
            f"{len(groups)} students of {domain}")  # fmt: skip
    return [chosen]


def _name(row):
    # the grid's students have numbers for names
    return f"student {row.name}" if row.kind == "student" else row.name
