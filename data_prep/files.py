"""Text files: read in step, written whole.

A line ends at a line feed and nowhere else. Carriage returns, U+2028 and the
like are characters of the line, so that no odd separator can shift a pair.
"""

import contextlib
import gzip
import hashlib
import io
import os
import re
import shutil
import unicodedata
import zlib
from pathlib import Path

try:
    from backports import zstd
except ImportError:  # before the set-up, for those who only ask for a plan
    zstd = None

PACKED = (".gz", ".zst")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # not text
DAMAGED = (  # what archives raise
    EOFError, gzip.BadGzipFile, zlib.error, *([zstd.ZstdError] if zstd else [])
)  # fmt: skip


def read_lines(path):
    """Yield the lines of a UTF-8 file, plain, ``.gz`` or ``.zst``, without their line feed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not UTF-8 or the archive is damaged; names file and line.
    """
    path = Path(path)
    number = 0
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                yield line.removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} "
                f"at column {error.start + 1}); convert the file, for example with iconv"
            ) from None
        except DAMAGED as error:
            raise ValueError(
                f"{path} is damaged after line {number} ({error}); fetch it again"
            ) from None


def read_bitext(src_path, tgt_path):
    """Yield (line number from 1, source line, target line), both files read in step.

    Raises:
        ValueError: one file ends before the other; names the line.
    """
    end = object()
    src_lines, tgt_lines = read_lines(src_path), read_lines(tgt_path)
    number = 0
    while True:
        number += 1
        src, tgt = next(src_lines, end), next(tgt_lines, end)
        if src is end and tgt is end:
            return
        if src is end or tgt is end:
            shorter = src_path if src is end else tgt_path
            raise ValueError(
                f"{src_path} and {tgt_path} stop being parallel at line {number}: "
                f"{shorter} has only {number - 1:,} lines"
            )
        yield number, src, tgt


def count_lines(path):
    """Number of lines, the last one counted even without its line feed."""
    return sum(1 for _ in read_lines(path))


def find_text(folder, split, lang):
    """Path of ``<folder>/<split>.<lang>`` or the same with ``.gz`` or ``.zst``.

    Raises:
        FileNotFoundError: none exists.
        ValueError: several exist, so which one is meant is unclear.
    """
    plain = Path(folder) / f"{split}.{lang}"
    paths = [plain, *(plain.with_name(plain.name + suffix) for suffix in PACKED)]
    found = [path for path in paths if path.exists()]
    if not found:
        raise FileNotFoundError(f"{plain} is missing (and so are {_names(paths[1:])})")
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {_names(found[1:])} exist; remove what is out of date")
    return found[0]


def plain_name(path):
    """File name of ``path`` without ``.gz`` or ``.zst``."""
    path = Path(path)
    return path.stem if path.suffix in PACKED else path.name


def _names(paths):
    return " and ".join(path.name for path in paths)


@contextlib.contextmanager
def write_whole(path):
    """Open a text file that carries its name only when it is complete.

    Writes ``PATH.part`` and renames it at the end; an exception removes it.
    A name that ends in ``.gz`` or ``.zst`` is compressed, with no time stamp
    inside, so that the same text gives the same bytes.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as raw, contextlib.ExitStack() as stack:
            binary = raw
            if path.suffix == ".gz":
                binary = stack.enter_context(
                    gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
                )
            elif path.suffix == ".zst":
                binary = stack.enter_context(_zstd(path).ZstdFile(raw, mode="wb"))
            text = io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
            yield text
            text.flush()
            text.detach()
            stack.close()
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def write_whole_folder(path, replace=False):
    """Make a folder that carries its name only when it is complete.

    Yields ``PATH.part``, an empty folder; renames it at the end and removes it
    after an exception.

    Raises:
        FileExistsError: ``path`` exists and ``replace`` is false.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists; remove it or name another place")
    part = path.with_name(path.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        yield part
        put_in_place(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def put_in_place(part, path):
    """Rename folder ``part`` to ``path``; what stood there before is removed."""
    part, path = Path(part), Path(path)
    old = path.with_name(path.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    if path.exists():
        os.rename(path, old)
    os.rename(part, path)
    if old.exists():
        shutil.rmtree(old)


def sha256(path):
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_text(path, out_path):
    """Write the bytes of a text file, decompressed and otherwise unaltered, to ``out_path``."""
    with open_bytes(Path(path)) as file, open(out_path, "wb") as out:
        shutil.copyfileobj(file, out)


# everything that some reader takes for a line or word boundary (a text file opened the
# usual way splits at \r, str.splitlines at U+2028, str.split at U+3000), and control characters
_SEPARATORS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


def one_line(text):
    """``text`` in NFC with single spaces and no other white space or control characters."""
    # what can be printed has no white space but spaces, and no control characters
    if (text.isprintable() and "  " not in text and unicodedata.is_normalized("NFC", text)
            and not text.startswith(" ") and not text.endswith(" ")):  # fmt: skip
        return text
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFC", text)).strip(" ")


def open_bytes(path):
    """Open a file, plain, ``.gz`` or ``.zst``, to read its bytes, decompressed."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a text file was expected")
    if path.suffix == ".zst":
        return _zstd(path).open(path, "rb")
    return (gzip.open if path.suffix == ".gz" else open)(path, "rb")


def _zstd(path):
    if zstd is None:
        raise ValueError(f"{path} needs the package backports.zstd: source recipes/bootstrap.sh")
    return zstd
