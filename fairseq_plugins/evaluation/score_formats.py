"""Scores as people and programs read them: a table, sacreBLEU's line, sacreBLEU's JSON."""

import json
import textwrap
from pathlib import PurePath

from fairseq_plugins.evaluation import comet
from fairseq_plugins.evaluation.indicators import INDICATORS

WIDTH = 100  # columns
NAME = 34  # columns of a system's name, at most
SIGNIFICANT = 0.05
NO_SHARE = ("length_ratio",)  # is a ratio, not a share


def lines_of(results, width, brief):
    """sacreBLEU's lines, ``BLEU|nrefs:1|... = 34.1 ...``; with several systems or test sets each
    after the test set, the system and a tab."""
    several = sum(len(result["objects"]) for result in results.values()) > 1
    for test_set, result in results.items():
        for system, objects in result["objects"].items():
            for found, signature in objects.values():
                places = _places(found, width)
                text = found.format(places, signature=signature)
                if brief:
                    text = f"{found.score:.{places}f}"
                yield f"{test_set}\t{system}\t{text}" if several and not brief else text


def as_json(results, width):
    """What ``sacrebleu --format json`` prints: for one system a list of its metrics, for several a
    list of systems."""
    several = sum(len(result["objects"]) for result in results.values()) > 1
    if not several:
        ((_, result),) = results.items()
        ((_, objects),) = result["objects"].items()
        record = [
            json.loads(found.format(_places(found, width), signature=signature, is_json=True))
            for found, signature in objects.values()
        ]
        record = record if len(record) > 1 else record[0]
        return json.dumps(record, indent=1, ensure_ascii=False)
    record = []
    for test_set, result in results.items():
        for system, objects in result["objects"].items():
            one = {"test_set": test_set, "system": system}
            paired = result["systems"][system].get("paired", {})
            for metric, (found, signature) in objects.items():
                one[found.name] = {
                    "score": round(found.score, _places(found, width)),
                    "p_value": paired.get(metric, {}).get("p_value"),
                    "mean": round(found._mean, width) if found._mean >= 0 else None,
                    "ci": round(found._ci, width) if found._mean >= 0 else None,
                    "signature": signature,
                }
            record.append(one)
    return json.dumps(record, indent=1, ensure_ascii=False)


def table(results, settings):
    """Scores, paired tests, indicators and signatures for people, 100 columns wide."""
    lines = []
    for test_set, result in results.items():
        references = len(result["references"])
        names = short_names(result["systems"])
        traits = []
        if any(system["indicators"] for system in result["systems"].values()):
            traits = [*_indicator_tables(result, names), ""]
            if any("[1]" in line for line in traits):
                names = {name: f"[{number}] {names[name]}"
                         for number, name in enumerate(names, start=1)}  # fmt: skip
        lines += [
            f"{test_set}: {result['lines']:,} lines, "
            f"{references} reference{'s' if references > 1 else ''}",
            "",
            *_scores(result, settings, names),
            "",
            *traits,
        ]
    return "\n".join([*lines, *_notes(results, settings)]) + "\n"


def short_names(names):
    """{name: name for tables}: files without the folders and endings that all share."""
    names = list(names)
    parts = [PurePath(name).parts for name in names]
    if len(names) > 1 and all("/" in name for name in names):
        while len({part[0] for part in parts}) == 1 and all(len(part) > 1 for part in parts):
            parts = [part[1:] for part in parts]
        while len({part[-1] for part in parts}) == 1 and all(len(part) > 1 for part in parts):
            parts = [part[:-1] for part in parts]
    short = {name: "/".join(part) or name for name, part in zip(names, parts, strict=True)}
    return {name: text if len(text) <= NAME else "…" + text[1 - NAME :]
            for name, text in short.items()}  # fmt: skip


def _scores(result, settings, names):
    rows = []
    for name, system in result["systems"].items():
        cells = []
        for found, _ in result["objects"][name].values():
            text = f"{found.score:.{_places(found, 1)}f}"
            cells.append(text + (f" ± {found._ci:.1f}" if found._ci >= 0 else ""))
        mark = " (baseline)" if name == settings.baseline else ""
        rows.append([names[name] + mark, *cells])
        if "paired" in system:
            against = names[settings.baseline]
            rows.append([f"  against {against}", *map(_difference, system["paired"].values())])
        if system["empty_lines"]:
            rows.append([f"  {_empty(system['empty_lines'])}"])
    objects = next(iter(result["objects"].values()))
    heads = ["system", *(found.name for found, _ in objects.values())]
    return _aligned([heads, *(row + [""] * (len(heads) - len(row)) for row in rows)])


def _difference(paired):
    star = "*" if paired["p_value"] < SIGNIFICANT else ""
    return f"{paired['difference']:+.1f}{star} (p {_p_value(paired['p_value'])})"


def _places(found, width):
    """Decimal places: COMET is between 0 and 1."""
    return max(width, 4) if found.name == comet.NAME else width


def _p_value(value):
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _empty(count):
    return f"{count:,} empty line{'s' if count > 1 else ''}"


def _indicator_tables(result, names):
    """Indicators as rows, systems as columns; as many columns as fit, then another table."""
    systems = {name: system["indicators"] for name, system in result["systems"].items()}
    keys = list(next(iter(systems.values())))
    left = [
        ["trait of the output", *(INDICATORS[key].title for key in keys)],
        ["of", *(_common({one[key]["of"] for one in systems.values()}) for key in keys)],
    ]

    def columns(heads, counts):
        return [[heads[name], *(_indicator(key, one[key], counts) for key in keys)]
                for name, one in systems.items()]  # fmt: skip

    blocks = _blocks(left, columns(names, True))
    if len(blocks) > 1:
        numbers = {name: f"[{number}]" for number, name in enumerate(names, start=1)}
        blocks = _blocks(left, columns(numbers, False))
    lines = []
    for block in blocks:
        lines += [*_aligned(list(map(list, zip(*left, *block, strict=True)))), ""]
    return lines[:-1]


def _blocks(left, columns):
    """Columns in groups that fit beside the left ones."""
    blocks = [[]]
    for column in columns:
        if blocks[-1] and sum(map(_wide, [*left, *blocks[-1], column])) > WIDTH + 2:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _wide(column):
    return max(map(len, column)) + 2


def _common(sizes):
    """What all systems are counted of: the same number, or their own."""
    return f"{sizes.pop():,}" if len(sizes) == 1 else "own"


def _indicator(key, entry, count):
    if entry["value"] is None:
        return "–"
    if key in NO_SHARE:
        return f"{entry['value']:.2f}"
    return f"{100 * entry['value']:.1f} %" + (f" ({entry['count']:,})" if count else "")


def _aligned(rows):
    """Lines of cells; the first row is a heading with a rule below."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip
    return [text[0], "  ".join("-" * width for width in widths), *text[1:]]


def _notes(results, settings):
    first = next(iter(results.values()))
    objects = next(iter(first["objects"].values()))
    notes = []
    if settings.resamples:
        notes.append("± is half of the 95 % interval (bootstrap).")
    if settings.baseline is not None:
        kind = {"bs": "paired bootstrap", "ar": "approximate randomisation"}[settings.paired]
        notes.append(f"p: {kind} against the baseline; * is p < {SIGNIFICANT}.")
    if "ter" in settings.metrics:
        notes.append("TER counts edits: less is better.")
    if any(system["indicators"] for system in first["systems"].values()):
        notes.append(
            "Traits: share (number) of lines, words or terms; dad-score --list-indicators "
            "defines them."
        )
    for test_set, result in results.items():
        if "terms" in result:
            notes.append(f"{len(result['terms']):,} terms of {test_set} were mined from --train.")
    text = textwrap.wrap(" ".join(notes), WIDTH, break_on_hyphens=False)
    return [*text, *(f"{found.name}|{signature}" for found, signature in objects.values())]
