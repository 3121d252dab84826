"""Pairs out of the files that corpora come in: text, TSV, TMX, SGM, inside archives or not.

mtdata's parser reads what is line by line. Files are opened here, since a line ends at a line
feed and nowhere else, and so that .zst and damaged archives are treated as everywhere. TMX is
read here too: mtdata's reader gives no document names, ends a text at its first inline element,
takes every file for UTF-8 and cannot be imported without the whole index.
"""

import bz2
import contextlib
import fnmatch
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from itertools import zip_longest
from pathlib import Path
from xml.etree import ElementTree

from backports import zstd

OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd.open}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
KINDS = {"tsv": "tsv", "csv": "csvwithheader", "tmx": "tmx", "xml": "wmt21xml"}
IN_TWO_FILES = ("txt", "sgm")
# a text without its translation, in TED's tables
NO_TRANSLATION = ("__NULL__", "_ _ NULL _ _")
# what stands in for codes of a layout, not for text, inside a TMX segment
_CODES = ("bpt", "ept", "it", "ph", "ut")
_TAG = re.compile("([A-Za-z]{2,3})([-_][A-Za-z0-9]+)*")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstd.ZstdError,
           zipfile.BadZipFile, tarfile.TarError)  # fmt: skip


class Damaged(ValueError):
    """An archive or compressed file that ends too early or does not match its checksum."""

    def __init__(self, path, error):
        super().__init__(f"{path} is damaged ({str(error) or type(error).__name__})")
        self.path = Path(path)


def kind_of(name):
    """What mtdata calls the kind of a file with two languages in it, by its name; None: unknown."""
    path = Path(name)
    return KINDS.get((path.with_suffix("") if path.suffix in OPEN else path).suffix[1:].lower())


def read_pairs(paths, entry):
    """Yield (first text, second text, document or None); a missing translation is None.

    Args:
        paths: the files of the set, archives among them.
        entry: mtdata's ``Entry``: what kind of file it is, which members of an archive and
            which columns count; ``meta["fields"]["document"]`` is the column with the
            document's name, ``meta["prop"]`` the <prop> of a TMX file.

    Raises:
        Damaged: an archive is.
        ValueError: a file is not of its kind, or two are not parallel; names the row.
    """
    kind = entry.in_ext or entry.ext
    sources = [source for path in paths for source in _members(Path(path), entry)]
    readers = [_records(source, kind, entry) for source in sources]
    if any(kind.startswith(name) for name in IN_TWO_FILES):
        if len(readers) != 2:
            names = ", ".join(source.name for source in sources)
            raise ValueError(f"{entry.did}: two files with a language each expected, not {names}")
        yield from _in_step(readers, sources)
        return
    for reader in readers:
        for number, (first, second, document) in enumerate(reader):
            if number == 0 and _is_header(first, second, entry):
                continue
            yield _text(first), _text(second), document


def _in_step(readers, sources):
    for number, (first, second) in enumerate(zip_longest(*readers), start=1):
        if first is None or second is None:
            shorter = sources[0 if first is None else 1].name
            raise ValueError(
                f"{sources[0].name} and {sources[1].name} stop being parallel at line {number}: "
                f"{shorter} has only {number - 1:,} lines"
            )
        yield first, second, None


def _records(source, kind, entry):
    """Records of one file: texts, or for kinds with both languages (text, text, document)."""
    from mtdata.parser import Parser

    try:
        with _damage_named(source.path):
            if "tmx" in kind:
                yield from _read_tmx(source, entry.did.langs, (entry.meta or {}).get("prop"))
                return
            parser = Parser([source], ext=kind, ent=entry)
            if "tsv" in kind:
                yield from _read_table(parser.read_tsv(source), entry)
                return
            for record in parser.read_segs(show_pbar=False):
                if isinstance(record, str):
                    yield record
                else:
                    first, second, *about = record
                    yield first, second, about[0].get("document") if about else None
    except ElementTree.ParseError as error:
        raise ValueError(f"{source.name} is not well-formed XML: {error}") from None


def _read_table(rows, entry):
    """(text, text, document) of each row; None for a cell that is not there."""
    fields = (entry.meta or {}).get("fields", {})
    columns = (*(entry.cols or (0, 1)), fields.get("document", fields.get("doc_id")))
    for row in rows:
        # mtdata would stop at a row that is too short
        first, second, document = (
            row[column] if column is not None and column < len(row) else None
            for column in columns
        )
        yield first, second, document or None


def _is_header(first, second, entry):
    """Whether the first row names the languages of the columns, as in TED's tables."""
    return [_language(first), _language(second)] == [tag.lang for tag in entry.did.langs]


def _language(tag):
    """Three-letter code of a tag such as de, DE-at or zh_CN; None where it is none."""
    from mtdata.iso.iso639 import iso3_code

    match = _TAG.fullmatch(tag or "")
    return iso3_code(match[1]) if match else None


def _text(text):
    return None if not text or any(null in text for null in NO_TRANSLATION) else text


# -- files and members of archives ---------------------------------------------------------


class _Source:
    """A file as mtdata's parser wants it: it has a name and can be opened as text."""

    suffix = ""  # what is read is decompressed already

    def __init__(self, path, open_bytes, name=None):
        self.path, self.open_bytes = path, open_bytes
        self.name = f"{path}: {name}" if name else str(path)
        self._file = None

    def open(self, mode="r", **options):
        """The text, whatever mtdata asks for: a line ends at a line feed, a byte-order mark is
        no text, and a byte that is not UTF-8 becomes U+FFFD."""
        return io.TextIOWrapper(
            self.open_bytes(), encoding="utf-8-sig", errors="replace", newline="\n"
        )

    def read(self, size=-1):
        """Bytes from where the last call ended, as XML parsers read."""
        self._file = self._file or self.open_bytes()
        return self._file.read(size)


def _members(path, entry):
    """The files of a set: ``path`` itself, or what the set takes out of the archive."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    if not entry.is_archive:
        return [_Source(path, lambda: OPEN.get(path.suffix, open)(path, "rb"))]
    with _damage_named(path):
        found = _find_in_zip if zipfile.is_zipfile(path) else _find_in_tar
        return [found(path, pattern) for pattern in entry.in_paths]


def _find_in_zip(path, pattern):
    with zipfile.ZipFile(path) as archive:
        name = _only(path, pattern, fnmatch.filter(archive.namelist(), pattern))
    return _Source(path, lambda: zipfile.ZipFile(path).open(name), name)


def _find_in_tar(path, pattern):
    def open_bytes():
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(tarfile.open(path))
            for member in archive:  # one pass: .tar.gz has no table of contents
                if member.name == name:
                    file = archive.extractfile(member)
                    stack.pop_all()  # the file reads from the archive until it is closed
                    return file
        raise FileNotFoundError(f"{path} has lost {name}")

    if set(pattern) & set("*?["):
        with tarfile.open(path) as archive:
            names = [member.name for member in archive if member.isfile()]
        name = _only(path, pattern, fnmatch.filter(names, pattern))
    else:
        with tarfile.open(path) as archive:
            names = (member.name for member in archive if member.isfile())
            name = next((name for name in names if name.removeprefix("./") == pattern), None)
        name = _only(path, pattern, [name] if name else [])
    return _Source(path, open_bytes, name)


def _only(path, pattern, names):
    if len(names) != 1:
        found = f"{len(names)} files: {', '.join(names[:5])}" if names else "no file"
        raise ValueError(f"in {path}, {pattern} matches {found}; one is expected")
    return names[0]


@contextlib.contextmanager
def _damage_named(path):
    try:
        yield
    except _DAMAGE as error:
        raise Damaged(path, error) from None


# -- TMX -----------------------------------------------------------------------------------


def _read_tmx(source, langs, prop):
    """Yield (text, text, document) of each translation unit; None where a language is missing."""
    ancestors = []
    for event, element in ElementTree.iterparse(source, events=("start", "end")):
        if event == "start":
            ancestors.append(element)
            continue
        ancestors.pop()
        if _tag(element) == "tu":
            yield _unit(element, langs, prop)
            for parent in ancestors[-1:]:  # it would keep every unit that was read
                parent.clear()


def _unit(unit, langs, prop):
    texts, document = {}, None
    for element in unit:
        if _tag(element) == "prop" and prop and element.get("type") == prop:
            document = element.text
        if _tag(element) != "tuv":
            continue
        lang = _language(element.get(_XML_LANG) or element.get("lang"))
        segment = next((child for child in element if _tag(child) == "seg"), None)
        if segment is not None:
            # of several variants of a language, the first
            texts.setdefault(lang, "".join(_pieces(segment)).strip())
    return *(texts.get(tag.lang) for tag in langs), document


def _pieces(element):
    yield element.text or ""
    for child in element:
        if _tag(child) not in _CODES:
            yield from _pieces(child)
        yield child.tail or ""


def _tag(element):
    return element.tag.rpartition("}")[2]
