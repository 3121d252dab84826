"""Get a corpus: from the catalogue's public sets and your own files to a raw folder.

  --list     what there is: pairs, domains, sets, licences
  --dry-run  what would be fetched, its size, its licence, what is there already
  --out DIR  fetch it and write a raw folder, which `python -m data_prep.clean` reads

A raw folder holds, for train and as much of dev and test as the catalogue has,

  train.SRC, train.TGT    the pairs, one a line, sets in the order of the catalogue
  train.origin            for each line the id of its set
  train.documents         for each line the name of its document, empty where none is known;
                          absent where no set knows any
  licences.tsv            id, role, licence, citation, address and lines of each set
  references.bib          what the sets ask you to cite, as far as mtdata knows it
  manifest.json           what made it, with the SHA-256 of each file that was read

Nothing is filtered here. What has no translation is left out and counted; a text of several
lines becomes one line.

Files go to the cache (--cache, $DAD_CACHE, or ~/.cache/distill-adapt-distill/corpora) and are
downloaded once. After a stop, the same command goes on where it stopped. On a machine without
network, copy the files to the places that --dry-run shows.

Your own files: write a catalogue (TSV with the columns id, pair, domain, role, source, licence,
citation; `python -m pydoc data_prep.catalogue` explains sources) and name it with --catalogue.
Add --catalogue built-in to have ours too.

Licensed corpora: COPPA (patents, from WIPO) cannot be downloaded. With your own copy, set
DAD_CORPORA to a folder and put the TMX files into its folder coppa, one for each pair:
coppa/de-en.tmx, coppa/ru-en.tmx, coppa/zh-en.tmx. Without it, --domain patents goes on with what
is public and says so; where nothing is left, and with --id, it is an error.

Example:
  python -m data_prep.fetch --list --pair de-en
  python -m data_prep.fetch --pair de-en --domain medical --dry-run
  python -m data_prep.fetch --pair de-en --domain medical --out downloads/medical
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from data_prep import command
from data_prep.catalogue import OURS, ROLES, Row, read_catalogues, select
from data_prep.download import Cache, sizes
from data_prep.files import write_whole, write_whole_folder
from data_prep.known_sets import find_sets, import_mtdata
from data_prep.manifest import write_manifest
from data_prep.parallel_files import ARCHIVES, Damaged, kind_of, read_pairs

PROG = "data_prep.fetch"
NOT_UTF8 = "\ufffd"
# one written language under two names
SAME = {"cmn": "zho"}


@dataclass
class Set:
    """A row of the catalogue with what is needed to fetch and read it."""

    row: Row
    entry: object  # mtdata's Entry
    urls: list = field(default_factory=list)
    files: list = field(default_factory=list)  # local ones, or downloaded

    @property
    def addresses(self):
        return self.urls or [str(path) for path in self.files]

    @property
    def missing(self):
        """Local files that are not there."""
        return [path for path in self.files if not path.is_file()]


# -- from the catalogue to files ------------------------------------------------------------


def resolve(rows, cache_folder):
    """``Set`` of each row.

    Raises:
        ValueError: mtdata does not know a set, or it is of other languages than its row says.
    """
    entries = find_sets([row.name for row in rows if row.kind == "mtdata"], cache_folder)
    return [
        _from_mtdata(row, entries[row.name]) if row.kind == "mtdata" else _from_files(row)
        for row in rows
    ]


def _from_mtdata(row, entry):
    langs = [SAME.get(tag.lang, tag.lang) for tag in entry.did.langs]
    if sorted(langs) != sorted(tag.lang for tag in _tags(row.langs)):
        raise ValueError(f"{row.id} is to be {row.pair}, but {row.name} is {entry.did.lang_str}")
    if entry.ext == "hfds":
        raise ValueError(
            f"{row.id}: {row.name} comes through the package datasets, which is not used here; "
            f"save it as text and name it as file:"
        )
    if row.options.keys() & set(row.langs):
        # the columns are the user's, so mtdata's order of languages no longer counts
        langs = [tag.lang for tag in _tags(row.langs)]
        entry.did = dataclasses.replace(entry.did, langs=_tags(row.langs))
    _set_columns(row, entry)
    urls = list(entry.url) if isinstance(entry.url, (list, tuple)) else [entry.url]
    return Set(row, entry, urls=urls)


def _from_files(row):
    import_mtdata()
    from mtdata.entry import DatasetId, Entry

    names = _sides(row, row.name)
    members = _sides(row, row.options["member"]) if "member" in row.options else None
    inside = members or names
    kind = kind_of(inside[0])
    if len(inside) == 2:
        kind = "sgm" if inside[0].lower().endswith(".sgm") else "txt"
    is_archive = names[0].lower().endswith(ARCHIVES)
    if is_archive != bool(members) or not kind:
        what = "an archive needs member=" if is_archive else (
            "member= is for archives" if members else
            "two text files have {lang} in their name; else it is a .tsv, .csv or .tmx"
        )  # fmt: skip
        raise ValueError(f"{row.id}: {row.source} cannot be read: {what}")
    entry = Entry(
        DatasetId(group="file", name="file", version="1", langs=_tags(row.langs)),
        url=names, ext="zip" if is_archive else kind, in_paths=members, in_ext=kind,
    )  # fmt: skip
    _set_columns(row, entry)
    return Set(row, entry, files=[_locate(row, name) for name in names])


def _sides(row, name):
    """A name with {pair} filled in; two names where it has {lang}."""
    name = name.replace("{pair}", row.pair)
    return [name.replace("{lang}", lang) for lang in row.langs] if "{lang}" in name else [name]


def _locate(row, name):
    """Where a local file is: below the catalogue's folder, else below $DAD_CORPORA."""
    below = [row.catalogue.parent] if row.catalogue.parent != Path(__file__).parent else []
    if os.environ.get("DAD_CORPORA"):
        below.append(Path(os.environ["DAD_CORPORA"]))
    places = [folder / Path(name).expanduser() for folder in below]
    return next((place for place in places if place.is_file()),
                places[-1] if places else Path("$DAD_CORPORA") / name)  # fmt: skip


def _set_columns(row, entry):
    columns = [row.options.get(lang) for lang in row.langs]
    if all(columns):
        entry.cols = tuple(int(column) - 1 for column in columns)
    document = row.options.get("document")
    if document and "tmx" in (entry.in_ext or entry.ext):
        entry.meta = {"prop": document}
    elif document:
        if not (document.isdigit() and int(document)):
            raise ValueError(f"{row.id}: document= is the number of a column, not {document!r}")
        entry.meta = {"fields": {"document": int(document) - 1}}


def _tags(langs):
    """mtdata's tags of two-letter codes, deu for de.

    Raises:
        ValueError: there is no such language.
    """
    import_mtdata()
    from mtdata.iso.bcp47 import bcp47

    tags = tuple(bcp47.try_parse(lang, default=None) for lang in langs)
    if None in tags:
        raise ValueError(f"{langs[tags.index(None)]} is no language that mtdata knows")
    return tags


def without_absent(sets, ids=()):
    """The sets whose files are there; those that may be absent are named and left out.

    Args:
        ids: sets that were asked for by name and may not be left out.

    Raises:
        FileNotFoundError: a file is missing that may not be.
        ValueError: nothing is left.
    """
    left = []
    for item in sets:
        if not item.missing:
            left.append(item)
            continue
        what = f"{item.row.id}: {', '.join(map(str, item.missing))} is missing" + (
            f" ({item.row.notes})" if item.row.notes else ""
        )
        if "absent" not in item.row.options or item.row.id in ids:
            raise FileNotFoundError(what)
        print(f"{what}; going on without it", file=sys.stderr)
    if not left:
        raise ValueError("nothing is left to fetch: what was chosen has to be put there by you")
    return left


# -- from files to a raw folder -------------------------------------------------------------


def fetch(sets, langs, out, cache, *, jobs=4, limit=None, compress=None, catalogues=()):
    """Write the raw folder ``out`` and return the counts of each set; see the module's help.

    Args:
        sets: from ``resolve``, in the order of the catalogue.
        langs: source and target language.
        cache: a ``Cache``.
        jobs: downloads at once.
        limit: take only the first so many pairs of each set.
        compress: ``gz`` or ``zst``.
        catalogues: the files that the sets come from, for the manifest.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: a local file is missing.
        ValueError: a download fails, or a file is damaged or not what it should be.
    """
    started = time.monotonic()
    with write_whole_folder(out) as part:  # refuses an existing one before anything is fetched
        wanted = {url: item.entry.filename for item in sets for url in item.urls}
        places = cache.get_all(wanted, jobs)
        for item in sets:
            item.files = item.files or [places[url] for url in item.urls]
        counts = {}
        for role in ROLES:
            chosen = [item for item in sets if item.row.role == role]
            if chosen:
                suffix = f".{compress}" if compress else ""
                counts |= _write_split(chosen, role, langs, part, suffix, limit, cache)
        _write_about(part, sets, counts)
        lines = Counter()
        for item in sets:
            lines[item.row.role] += counts[item.row.id]["pairs"]
        write_manifest(
            part,
            settings={
                "source_lang": langs[0],
                "target_lang": langs[1],
                "limit": limit,
                "sets": {item.row.id: item.row.source for item in sets},
                "downloads": {
                    url: {key: cache.record(path)[key] for key in ("sha256", "bytes", "fetched")}
                    for url, path in places.items()
                    if not url.startswith("file:")
                },
            },
            inputs=dict.fromkeys(
                [*catalogues]
                + [path for item in sets for path in item.files
                   if not item.urls or item.urls[0].startswith("file:")]
            ),
            counts={**lines, "sets": counts},
            seconds=time.monotonic() - started,
        )  # fmt: skip
    return counts


def _write_split(sets, role, langs, folder, suffix, limit, cache):
    """Write the pairs of all sets of a role; {id: counts}."""
    counts = {}
    names = [role + ending for ending in (f".{langs[0]}", f".{langs[1]}", ".origin", ".documents")]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(write_whole(folder / (name + suffix))) for name in names]
        src_out, tgt_out, origin_out, documents_out = files
        for item in sets:
            count = counts[item.row.id] = Counter(pairs=0)
            for src, tgt, document in _pairs_of(item, langs, count, limit, cache):
                src_out.write(f"{src}\n")
                tgt_out.write(f"{tgt}\n")
                origin_out.write(f"{item.row.id}\n")
                # a name of one set is no name of another
                documents_out.write(f"{item.row.id}:{document}\n" if document else "\n")
                count["in_documents"] += bool(document)
            if not count["pairs"]:
                raise ValueError(
                    f"{item.row.id} holds no pair ({count['without_translation']:,} without "
                    f"translation); look at {', '.join(map(str, item.files))} and at its "
                    f"languages or columns in the catalogue"
                )
    if not any(count["in_documents"] for count in counts.values()):
        (folder / (names[-1] + suffix)).unlink()
    return counts


def _pairs_of(item, langs, count, limit, cache):
    """Yield (source, target, document) of a set, each text on one line; counts what happened."""
    swapped = _tags(langs[:1])[0].lang not in _names(item.entry.did.langs[0])
    undo = _detokenisers(langs) if "detokenise" in item.row.options else None
    pairs = read_pairs(item.files, item.entry)
    try:
        for first, second, document in tqdm(
            pairs, desc=item.row.id, unit=" pairs", unit_scale=True, dynamic_ncols=True
        ):
            src, tgt = (second, first) if swapped else (first, second)
            if src is None or tgt is None:
                count["without_translation"] += 1
                continue
            count["with_bytes_not_utf8"] += NOT_UTF8 in src or NOT_UTF8 in tgt
            count["joined_lines"] += "\n" in src or "\n" in tgt
            texts = [text.replace("\n", " ") for text in (src, tgt)]
            if undo:
                texts = [detokenise(text) for detokenise, text in zip(undo, texts, strict=True)]
            count["pairs"] += 1
            yield *texts, document and document.replace("\n", " ")
            if count["pairs"] == limit:
                return
    except Damaged as error:
        if cache.forget(error.path):
            raise ValueError(
                f"{error}; it was removed from the cache, run again to fetch it anew"
            ) from None
        raise


def _names(tag):
    return {tag.lang, SAME.get(tag.lang, tag.lang)}


def _detokenisers(langs):
    from sacremoses import MosesDetokenizer

    def undo(lang):
        moses = MosesDetokenizer(lang=lang)
        return lambda text: moses.detokenize(text.split(" "))

    return [undo(lang) for lang in langs]


def _write_about(folder, sets, counts):
    """Write licences and references of the sets."""
    with write_whole(folder / "licences.tsv") as out:
        out.write("id\trole\tlicence\tcitation\taddress\tlines\n")
        for item in sets:
            row = item.row
            cells = [row.id, row.role, row.licence, row.citation, " ".join(item.addresses),
                     str(counts[row.id]["pairs"])]  # fmt: skip
            out.write("\t".join(cells) + "\n")
    with write_whole(folder / "references.bib") as out:
        out.write(references(sets))


def references(sets):
    """BibTeX of the sets as far as mtdata knows it, after the catalogue's citation of each."""
    lines = []
    for item in sets:
        lines.append(f"% {item.row.id}: {item.row.citation or 'nothing to cite is known'}\n")
    for key in dict.fromkeys(key for item in sets for key in item.entry.cite or ()):
        lines.append(_library()[key].to_string("bibtex"))
    return "\n".join(lines)


@functools.cache
def _library():
    import mtdata
    from pybtex.database import parse_file

    return parse_file(mtdata.resource_dir / "refs.bib", bib_format="bibtex").entries


# -- for people -----------------------------------------------------------------------------


def listing(rows, as_json=False):
    """What the catalogue has, a table or JSON."""
    if as_json:
        keys = [key.name for key in dataclasses.fields(Row) if key.name != "catalogue"]
        return json.dumps(
            [{key: getattr(row, key) for key in keys} for row in rows], indent=2,
            ensure_ascii=False,
        )  # fmt: skip
    table = [[row.id, row.pair, row.domain, row.role, row.licence, row.notes] for row in rows]
    return tabulate(table, headers=["id", "pair", "domain", "role", "licence", "notes"],
                    disable_numparse=True)  # fmt: skip


def preview(sets, cache):
    """What would be fetched: address, size, place, licence, citation of each set."""
    places = {url: cache.place(url, item.entry.filename) for item in sets for url in item.urls}
    there = {url for url, place in places.items() if place.is_file()}
    asked = sizes([url for url in places if url not in there])
    lines = []
    for item in sets:
        row = item.row
        lines.append(f"{row.id}  ({row.role})")
        lines.append(f"  licence   {row.licence}")
        lines.append(f"  cite      {row.citation or 'unknown'}")
        if row.notes:
            lines.append(f"  note      {row.notes}")
        for url in item.urls:
            if url in there:
                lines += [f"  cached    {places[url]}, {_bytes(places[url].stat().st_size)}"]
            else:
                lines += [f"  fetch     {url}, {_bytes(asked[url])}", f"       to   {places[url]}"]
        if not item.urls:
            for path in item.files:
                size = _bytes(path.stat().st_size) if path.is_file() else "missing"
                lines.append(f"  file      {path}, {size}")
    known = [size for size in asked.values() if size is not None]
    lines.append("")
    if not asked:
        lines.append("nothing to download")
    elif not known:
        lines.append(f"{len(asked)} files to fetch; no server told a size, are you offline?")
    else:
        unknown = f" and {len(asked) - len(known)} of unknown size" if len(known) < len(asked) \
            else ""  # fmt: skip
        lines.append(f"{len(asked)} files to fetch: {_bytes(sum(known))}{unknown}")
    return "\n".join(lines)


def _bytes(number):
    """A size for people."""
    return "size unknown" if number is None else tqdm.format_sizeof(number, "B", 1024)


def summary(sets, counts):
    """One line for each set, and what to do next where dev or test is missing."""
    for name, count in counts.items():
        notes = [
            f"{count[key]:,} {key.replace('_', ' ')}"
            for key in ("without_translation", "joined_lines", "with_bytes_not_utf8")
            if count[key]
        ]
        yield f"{name}: {count['pairs']:,} pairs" + (f" ({', '.join(notes)})" if notes else "")
    missing = [role for role in ROLES if role not in {item.row.role for item in sets}]
    if missing and "train" not in missing:
        yield f"no {' and no '.join(missing)} set: `python -m data_prep.split` takes it from train"


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    hidden = {"default": argparse.SUPPRESS}
    parser.add_argument("--pair", metavar="SRC-TGT", help="for example de-en", **hidden)
    parser.add_argument("--domain", dest="domains", action="append", metavar="NAME", **hidden,
                        help="all sets of a domain; may be repeated")  # fmt: skip
    parser.add_argument("--id", dest="ids", action="append", metavar="ID", **hidden,
                        help="one set; may be repeated")  # fmt: skip
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", metavar="DIR", help="raw folder to write", **hidden)
    what.add_argument("--list", action="store_true", help="print what there is", **hidden)
    what.add_argument("--dry-run", action="store_true", **hidden,
                      help="print what would be fetched: sizes, licences, places")  # fmt: skip
    what.add_argument("--cite", action="store_true", help="print BibTeX", **hidden)
    parser.add_argument("--json", action="store_true", help="--list as JSON", **hidden)
    parser.add_argument("--catalogue", dest="catalogues", action="append", metavar="FILE",
                        help="your catalogue instead of ours; may be repeated, and "
                        f"{OURS} is ours", **hidden)  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", help="where downloads are kept",
                        default=_default_cache())  # fmt: skip
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="downloads at once")
    parser.add_argument("--limit", type=int, metavar="N", **hidden,
                        help="take only the first N pairs of each set, for a trial")  # fmt: skip
    parser.add_argument("--compress", choices=["gz", "zst"], help="how to compress the text",
                        **hidden)  # fmt: skip
    args = vars(parser.parse_args(argv))
    for name in ("jobs", "limit"):
        if args.get(name, 1) < 1:
            raise ValueError(f"--{name} is a number above 0, not {args[name]}")
    catalogues = args.get("catalogues", [OURS])
    ids = args.get("ids", [])
    rows = select(read_catalogues(catalogues), args.get("pair"), args.get("domains", []), ids)
    if "list" in args:
        print(listing(rows, "json" in args))
        return
    if "domains" not in args and not ids:
        raise ValueError(
            "choose with --domain or --id; there is "
            + ", ".join(sorted({row.domain for row in rows}))
        )
    langs = _langs_of(rows, args.get("pair"))
    cache = Cache(Path(args["cache"]).expanduser())
    sets = resolve(rows, cache.folder)
    if "cite" in args:
        print(references(sets))
    elif "dry_run" in args:
        print(preview(sets, cache))
    else:
        sets = without_absent(sets, ids)
        counts = fetch(
            sets, langs, args["out"], cache, jobs=args["jobs"], limit=args.get("limit"),
            compress=args.get("compress"), catalogues=[row.catalogue for row in rows],
        )  # fmt: skip
        print("\n".join(summary(sets, counts)), file=sys.stderr)


def _langs_of(rows, pair):
    pairs = {row.pair for row in rows}
    if not pair and len(pairs) > 1:
        raise ValueError(f"choose one pair with --pair: {', '.join(sorted(pairs))}")
    return tuple((pair or pairs.pop()).split("-"))


def _default_cache():
    return os.environ.get("DAD_CACHE") or "~/.cache/distill-adapt-distill/corpora"


if __name__ == "__main__":
    main()
