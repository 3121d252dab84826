"""The catalogue of corpora: what there is for a pair and a domain, from where, its licence.

A catalogue is a TSV file in UTF-8 with this header; ``notes`` may be left out:

  id  pair  domain  role  source  licence  citation  notes

  pair      de-en: source and target language, two-letter codes
  role      train, dev or test
  source    mtdata:ID        a set of mtdata's index, as in mtdata:OPUS-emea-v3-deu-eng
            file:PATH        a file of yours, below the catalogue's folder or $DAD_CORPORA

In PATH, {lang} stands for the language of each side and {pair} for the pair. What a source is
made of is known by its name; settings follow after ?, joined by &:

  file:medical/train.{lang}.gz            two text files (plain, .gz, .zst, .bz2, .xz)
  file:memory.tmx                         TMX; document=TYPE: the <prop> that names the document
  file:pairs.tsv.gz?de=1&en=3&document=4  columns from 1 (1 and 2 by default)
  file:all.zip?member=train.{lang}        inside a .zip, .tar, .tar.gz or .tgz; * and ? match
  ...?detokenise=moses                    the text is tokenised: undo it with Moses' rules
  ...?absent=skip                         go on without it where the file is not there
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from data_prep.files import read_lines

OURS = "built-in"
PATH = Path(__file__).with_name("catalogue.tsv")
COLUMNS = ("id", "pair", "domain", "role", "source", "licence", "citation")
ROLES = ("train", "dev", "test")


@dataclass(frozen=True)
class Row:
    """A set of pairs: one line of a catalogue."""

    id: str
    pair: str
    domain: str
    role: str
    source: str
    licence: str
    citation: str
    notes: str = ""
    catalogue: Path = PATH

    @property
    def kind(self):
        """``mtdata`` or ``file``."""
        return self.source.partition(":")[0]

    @property
    def name(self):
        """mtdata's id of the set, or the path with its {lang} and {pair}."""
        return self.source.partition(":")[2].partition("?")[0]

    @property
    def options(self):
        """The settings after ``?``, a dictionary."""
        return dict(parse_qsl(self.source.partition("?")[2], keep_blank_values=True))

    @property
    def langs(self):
        return tuple(self.pair.split("-"))


def read_catalogue(path):
    """Rows of a catalogue, ``built-in`` or a file, in its order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or a line cannot be meant so; names file and line.
    """
    path = PATH if path == OURS else Path(path)
    lines = csv.reader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(lines, [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {', '.join(missing)}; a catalogue is a TSV file whose "
            f"first line is {' '.join(COLUMNS)} [notes], separated by tabs"
        )
    rows, places = [], {}
    for number, fields in enumerate(lines, start=2):
        if not "".join(fields).strip():
            continue
        place = f"{path}, line {number}"
        if len(fields) != len(header):
            raise ValueError(f"{place}: {len(fields)} columns, the header has {len(header)}")
        known = {
            column: text.strip()
            for column, text in zip(header, fields, strict=True)
            if column in (*COLUMNS, "notes")
        }
        row = Row(**known, catalogue=path)
        _check(row, place)
        if row.id in places:
            raise ValueError(f"{place}: {row.id} stands in line {places[row.id]} already")
        places[row.id] = number
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} names no set")
    return rows


def read_catalogues(paths):
    """Rows of several catalogues; an id of a later one must be new.

    Raises:
        ValueError: as ``read_catalogue``, or two catalogues use one id.
    """
    rows = {}
    for path in paths:
        for row in read_catalogue(path):
            if row.id in rows:
                raise ValueError(
                    f"{row.id} stands in {rows[row.id].catalogue} and in {row.catalogue}; "
                    f"give one of them another id"
                )
            rows[row.id] = row
    return list(rows.values())


def select(rows, pair=None, domains=(), ids=()):
    """Rows of a pair and of any of the domains, or with any of the ids, in the catalogue's order.

    A pair may be asked for in either direction.

    Raises:
        ValueError: a pair, domain or id is unknown; says what there is.
    """
    if pair:
        found = [row for row in rows if sorted(row.langs) == sorted(pair.split("-"))]
        _demand(found, f"no set for {pair}", "pairs", {row.pair for row in rows})
        rows = found
    for domain in domains:
        known = {row.domain for row in rows}
        _demand(domain in known, f"no domain {domain}{_of(pair)}", "domains", known)
    for name in ids:
        known = {row.id for row in rows}
        _demand(name in known, f"no set {name}{_of(pair)}", "ids", known)
    if not domains and not ids:
        return rows
    return [row for row in rows if row.domain in domains or row.id in ids]


def _of(pair):
    return f" for {pair}" if pair else ""


def _demand(found, what, kind, known):
    if not found:
        raise ValueError(f"the catalogue has {what}; its {kind}: {', '.join(sorted(known))}")


def _check(row, place):
    """Raise ``ValueError`` where a row cannot be meant so."""
    for column in ("id", "domain", "licence"):
        if not getattr(row, column):
            raise ValueError(f"{place}: the {column} is empty")
    if len(set(row.langs)) != 2 or not all(lang.isalpha() for lang in row.langs):
        raise ValueError(f"{place}: a pair is two languages such as de-en, not {row.pair!r}")
    if row.role not in ROLES:
        raise ValueError(f"{place}: a role is {', '.join(ROLES)}, not {row.role!r}")
    if row.kind not in ("mtdata", "file") or not row.name:
        raise ValueError(f"{place}: a source is mtdata:ID or file:PATH, not {row.source!r}")
    known = {*row.langs, "document", "detokenise", *(["member", "absent"] * (row.kind == "file"))}
    for option, value in row.options.items():
        if option not in known:
            raise ValueError(
                f"{place}: {option}= is no setting of a {row.kind} source; those are "
                f"{', '.join(sorted(known))}"
            )
        if option in row.langs and not (value.isdigit() and int(value)):
            raise ValueError(f"{place}: {option}= is the number of a column from 1, not {value!r}")
        only = {"detokenise": "moses", "absent": "skip"}.get(option, value)
        if value != only or not value:
            raise ValueError(f"{place}: {option}= is {only or 'empty'}, not {value!r}")
    if len(row.options.keys() & set(row.langs)) == 1:
        raise ValueError(f"{place}: name the columns of both languages, or of none")
