"""What mtdata's index says of the sets in the catalogue, so that nobody waits for the whole index.

mtdata knows some 300,000 sets: where each lies, what is inside and what to cite. Loading that
index takes seconds, making it (once, in the cache) about 20 seconds and 140 MB. So an answer is
kept: known_sets.jsonl beside this file has those for our catalogue, known_sets.jsonl in the
cache those for other sets that were asked for.

`python -m data_prep.known_sets` asks mtdata again for every set in our catalogue and rewrites the
file here; it fails when mtdata does not know one. For those who change the catalogue.
"""

import difflib
import json
import logging
import os
import pickle
import sys
from pathlib import Path

from data_prep import command
from data_prep.catalogue import OURS, read_catalogue
from data_prep.files import read_lines, write_whole

PROG = "data_prep.known_sets"
PATH = Path(__file__).with_suffix(".jsonl")


def find_sets(ids, cache):
    """{id: mtdata's ``Entry``} of mtdata's sets.

    Args:
        ids: mtdata's ids, such as OPUS-emea-v3-deu-eng.
        cache: folder for mtdata's index and for answers that are not shipped.

    Raises:
        ValueError: mtdata has no such set; names some that are like it.
    """
    kept = Path(cache) / PATH.name
    asked = _read(kept) if kept.exists() else {}
    known = _read(PATH) | asked
    missing = [name for name in ids if name not in known]
    if missing:
        kept.parent.mkdir(parents=True, exist_ok=True)
        asked |= ask_mtdata(missing, cache)
        _write(kept, asked)
        known |= asked
    return {name: _entry(known[name]) for name in ids}


def ask_mtdata(ids, cache):
    """{id: record} from mtdata's whole index, which is made first where it is not there."""
    if "MTDATA" not in os.environ and not Path("~/.mtdata").expanduser().exists():
        os.environ["MTDATA"] = str(Path(cache) / "mtdata")
    import_mtdata()
    import mtdata

    mtdata.cache_dir.mkdir(parents=True, exist_ok=True)
    made = mtdata.cached_index_file.exists()
    print(
        f"reading mtdata's index of public corpora in {mtdata.cache_dir}"
        + ("" if made else " (made now, once: about 20 seconds and 140 MB)"),
        file=sys.stderr, flush=True,
    )  # fmt: skip
    try:
        from mtdata.index import INDEX
    except (EOFError, pickle.UnpicklingError):  # making it was interrupted
        mtdata.cached_index_file.unlink()
        from mtdata.index import INDEX
    from mtdata.entry import Entry

    entries = {str(name): entry for name, entry in INDEX.entries.items()}
    found = {}
    for name in ids:
        if name not in entries:
            like = [other for other in entries if other.split("-")[3:] == name.split("-")[3:]]
            near = difflib.get_close_matches(name, like or entries, n=5, cutoff=0.5)
            raise ValueError(
                f"mtdata {mtdata.__version__} has no set {name}"
                + (f"; it has {', '.join(near)}" if near else "; `mtdata list` shows what it has")
            )
        found[name] = json.loads(json.dumps(entries[name], cls=Entry.JSONEncoder))
    return found


def import_mtdata():
    """Import mtdata, whose log repeats what our errors and counts say, and quieten it."""
    import mtdata  # noqa: F401  it sets up logging at import

    logging.getLogger().setLevel(logging.ERROR)


def _read(path):
    return {record["did"]: record for record in map(json.loads, read_lines(path))}


def _write(path, records):
    with write_whole(path) as out:
        for record in records.values():
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def _entry(record):
    import_mtdata()
    from mtdata.entry import Entry

    keys = ("did", "url", "filename", "ext", "in_paths", "in_ext", "cite", "cols", "meta")
    return Entry(**{key: record.get(key) for key in keys})


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    parser.add_argument("--cache", metavar="DIR", required=True, help="where mtdata's index goes")
    args = parser.parse_args(argv)
    ids = {row.name: None for row in read_catalogue(OURS) if row.kind == "mtdata"}
    found = ask_mtdata(ids, args.cache)
    _write(PATH, found)
    print(f"{PATH}: {len(found)} sets", file=sys.stderr)


if __name__ == "__main__":
    main()
