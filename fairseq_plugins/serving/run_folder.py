"""Which models of a recipe's work folder are worth seeing side by side."""

from pathlib import Path

from data_prep.files import read_lines
from data_prep.manifest import read_json
from fairseq_plugins.generation.models import EXPORTED_WEIGHTS

ROWS = ".rows.tsv"
GENERAL = "general"


def models_of_run(work, domain=None, say=lambda text: None):
    """(name, folder, label) of the run's teacher, its general student and its best student.

    The teacher is the adapted one, else the general one; the general student is the last of the
    table, which learnt from the teacher where there is one that did; the best student of the
    domain is that with the highest BLEU (beam) in scores/, or the last of the table while there
    are no scores.

    Args:
        work: work folder of a recipe, with ``plan/DOMAIN.rows.tsv`` and ``exported/``.
        domain: name of a domain; None: the only one.
        say: called with a sentence on what was chosen, or is missing.

    Raises:
        FileNotFoundError: the run has no plan, or none of these models was exported yet.
        ValueError: the domain is unknown or has to be named, or the plan is damaged.
    """
    work = Path(work)
    if not work.is_dir():
        raise FileNotFoundError(f"work folder {work} is missing")
    domain = _domain(work, domain)
    rows = _rows(work / "plan" / f"{domain}{ROWS}")
    exported = [row for row in rows if _folder(work, row).joinpath(EXPORTED_WEIGHTS).is_file()]

    def of(kind, name):
        return [
            row for row in exported if row["model"].startswith(f"{kind}/")
            and row["model"].endswith(f"/{name}")
        ]  # fmt: skip

    teachers = of("teacher", domain) or of("teacher", GENERAL)
    found = {
        "teacher": teachers[:1],
        "general student": of("student", GENERAL)[-1:],
        f"student of {domain}": _best(work, domain, of("student", domain), say),
    }
    missing = [what for what, rows in found.items() if not rows]
    chosen = [row for rows in found.values() for row in rows]
    if not chosen:
        raise FileNotFoundError(
            f"{work / 'exported'} holds none of the models of {domain}; they are exported when "
            f"they are scored, near the end of the run: run the recipe on"
        )
    if missing:
        say(f"{work} has no exported {' and no '.join(missing)} yet")
    return [(_name(row), _folder(work, row), row["label"]) for row in chosen]


def _domain(work, domain):
    names = sorted(path.name.removesuffix(ROWS) for path in work.glob(f"plan/*{ROWS}"))
    if not names:
        raise FileNotFoundError(
            f"{work} holds no plan/DOMAIN{ROWS}, which recipes write at their start; name the "
            f"models instead: --model NAME={work / 'exported'}/..."
        )
    if domain is None and len(names) > 1:
        raise ValueError(f"{work} has several domains; choose with --domain: {', '.join(names)}")
    if domain is not None and domain not in names:
        raise ValueError(f"{work} has no domain {domain!r}; there are {', '.join(names)}")
    return domain or names[0]


def _rows(path):
    """[{"name", "label", "model"}] in the order of the table."""
    header, *lines = [line.split("\t") for line in read_lines(path)]
    for number, fields in enumerate(lines, start=2):
        if len(fields) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(fields)} fields where the header has {len(header)}"
            )
    rows = [dict(zip(header, fields)) for fields in lines]
    if not {"name", "label", "model"} <= set(header):
        raise ValueError(f"{path}, line 1: name, label and model are expected in the header")
    return rows


def _folder(work, row):
    return work / "exported" / row["model"]


def _best(work, domain, students, say):
    scored = [(bleu, row) for row in students if (bleu := _bleu(work, domain, row)) is not None]
    if not scored:
        return students[-1:]
    bleu, best = max(scored, key=lambda pair: pair[0])
    if len(scored) > 1:
        say(f"{_name(best)} has the best BLEU of {len(scored)} students of {domain}: {bleu:.1f}")
    return [best]


def _bleu(work, domain, row):
    path = work / "scores" / domain / row["model"] / "scores.json"
    if not path.is_file():
        return None
    try:
        return read_json(path)["test_sets"][domain]["beam"]["bleu"]["score"]
    except KeyError:
        return None


def _name(row):
    # the grid's students have numbers for names
    return f"student {row['name']}" if row["name"][:1].isdecimal() else row["name"]
