"""Files from the net into a cache: resumed after a stop, checked, told apart from error pages.

A file that is complete lies in CACHE/HOST/NAME with NAME.json beside it: address, SHA-256, bytes
and when it came. NAME.part is what has come so far. What a server gives later must be the same
file. A file that you put there yourself (its place is what `--dry-run` shows) is taken as it is.
"""

import hashlib
import itertools
import queue
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from data_prep.files import sha256
from data_prep.manifest import read_json, write_json
from data_prep.pipeline.stage import lock, say

CHUNK = 1 << 16  # bytes
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass
LONGEST_WAIT = 60  # seconds between two tries
BEGINS = {  # what files of these kinds begin with
    ".zip": (b"PK\x03\x04", b"PK\x05\x06"),
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".bz2": (b"BZh",),
    ".xz": (b"\xfd7zXZ\x00",),
    ".zst": (b"\x28\xb5\x2f\xfd",),
}


class _Passing(Exception):
    """A failure that another try may heal."""

    def __init__(self, what, wait=0.0):
        super().__init__(what)
        self.wait = wait


@dataclass
class Cache:
    """Downloaded files.

    Args:
        folder: where they are kept.
        tries: attempts in a row that may bring nothing before giving up.
        wait: seconds before the second attempt; doubled for each further one.
        timeouts: seconds to connect, and to wait for more bytes.
    """

    folder: Path
    tries: int = 6
    wait: float = 1.0
    timeouts: tuple = (10.0, 60.0)

    def place(self, url, name):
        """Where the file of an address lies or will lie.

        Args:
            name: what to call it where the address has no file name.
        """
        parts = urlsplit(url)
        if parts.scheme == "file":
            return Path(url2pathname(parts.path))
        last = unquote(parts.path).rpartition("/")[2]
        if parts.query or "." not in last.strip("."):
            last = name
        # addresses of one host that end alike are told apart
        short = hashlib.sha256(url.encode()).hexdigest()[:8]
        return Path(self.folder) / (parts.hostname or "nohost") / f"{short}-{last}"

    def get(self, url, name):
        """Path of the file of an address, downloaded unless it is there already.

        Raises:
            FileNotFoundError: a file: address leads nowhere.
            ValueError: the server refuses, gives something else, or cannot be reached; says
                what to do.
        """
        path = self.place(url, name)
        if urlsplit(url).scheme == "file":
            if not path.is_file():
                raise FileNotFoundError(f"{path} ({url}) is missing")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path):
            if not (path.exists() and self._is_intact(url, path)):
                self._download(url, path)
        return path

    def get_all(self, files, jobs):
        """{url: path} of several files, so many at once.

        Args:
            files: {url: name}.

        Raises:
            ValueError: some could not be fetched; names each. The others are in the cache.
        """
        paths, failures = {}, []
        for url, result in _in_threads(lambda url: self.get(url, files[url]), files, jobs):
            if isinstance(result, (ValueError, FileNotFoundError)):
                failures.append(str(result))
            elif isinstance(result, OSError):  # the disk
                failures.append(f"{url}: {result}")
            elif isinstance(result, BaseException):
                raise result
            else:
                paths[url] = result
        if failures:
            if len(files) > 1:
                failures.insert(0, f"{len(failures)} of {len(files)} files were not fetched:")
            raise ValueError("\n".join(failures))
        return paths

    def record(self, path):
        """What is known of a file in the cache: ``url``, ``sha256``, ``bytes``, ``fetched``."""
        return read_json(_beside(path, ".json"))

    def forget(self, path):
        """Remove a file and what is known of it; True where it is one of the cache's."""
        if not _beside(path, ".json").exists():
            return False
        path.unlink()
        _beside(path, ".json").unlink()
        return True

    def _is_intact(self, url, path):
        """Whether a file is what came from the net; a file put there by hand is recorded."""
        if not _beside(path, ".json").exists():
            _check_kind(url, path, path)
            self._note(url, path, path)
            return True
        record = self.record(path)
        if (path.stat().st_size, sha256(path)) == (record["bytes"], record["sha256"]):
            return True
        say(f"{path} is no longer the file that was downloaded; fetching it again")
        path.unlink()
        return False

    def _note(self, url, path, whole):
        """Record ``whole``, the file of an address, unless it differs from what came before."""
        place = _beside(path, ".json")
        found = {"url": url, "sha256": sha256(whole), "bytes": whole.stat().st_size}
        if place.exists():
            before = read_json(place)
            if before["sha256"] != found["sha256"]:
                raise ValueError(
                    f"{url} gives another file than before: SHA-256 {found['sha256']} "
                    f"({found['bytes']:,} bytes), on {before['fetched']} it was "
                    f"{before['sha256']} ({before['bytes']:,} bytes); if the new one is meant, "
                    f"remove {place} and run again"
                )
        write_json(
            place, {**found, "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        )

    def _download(self, url, path):
        import requests

        part, progress = _beside(path, ".part"), _beside(path, ".part.json")
        failures, most = 0, _size(part)
        with requests.Session() as session, tqdm(
            desc=path.name.partition("-")[2], unit="B", unit_scale=True, unit_divisor=1024,
            dynamic_ncols=True,
        ) as bar:  # fmt: skip
            session.headers.update({"Accept-Encoding": "identity"})
            while True:
                try:
                    self._try(session, url, path, bar)
                    break
                except _Passing as failure:
                    failures = 0 if _size(part) > most else failures + 1
                    most = max(most, _size(part))
                    if failures >= self.tries:
                        raise ValueError(
                            f"{url}: {failure} ({failures} tries); {most:,} bytes have come, run "
                            f"the same command again to go on, or put the file at {path}"
                        ) from None
                    wait = max(failure.wait, self.wait * 2**failures * random.uniform(0.8, 1.2))
                    bar.write(f"{url}: {failure}; trying again", file=bar.fp)
                    time.sleep(min(wait, LONGEST_WAIT))
        try:
            _check_kind(url, part, path)
            self._note(url, path, part)
        except ValueError:
            part.unlink()
            progress.unlink()
            raise
        part.rename(path)
        progress.unlink(missing_ok=True)

    def _try(self, session, url, path, bar):
        """One request for what is still missing; ``_Passing`` when it breaks off."""
        import requests
        import urllib3

        part, progress = _beside(path, ".part"), _beside(path, ".part.json")
        have = _size(part)
        before = read_json(progress) if have and progress.exists() else {}
        if have and before.get("bytes") == have:
            return  # stopped between the last byte and the new name
        headers = {}
        if have and before.get("version"):
            # resumed only if it still is the file of which we have the beginning
            headers = {"Range": f"bytes={have}-", "If-Range": before["version"]}
        try:
            response = session.get(url, headers=headers, stream=True, timeout=self.timeouts)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Passing(_reason(error)) from None
        except requests.RequestException as error:
            raise ValueError(f"{url}: {error}") from None
        with response:
            status = response.status_code
            if status == 416:
                part.unlink()
                raise _Passing("the file has become shorter; starting over")
            if status in BUSY:
                raise _Passing(
                    f"the server answers {status} {response.reason}",
                    wait=_seconds(response.headers.get("Retry-After")),
                )
            if status not in (200, 206):
                raise ValueError(
                    f"{url}: the server answers {status} {response.reason}; look for the file's "
                    f"new address, and put it at {path}"
                )
            if status == 206 and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                part.unlink()
                raise _Passing("the server sends another piece than asked for; starting over")
            start = have if status == 206 else 0
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            _check_page(url, path, response)
            write_json(progress, {"version": _version(response.headers), "bytes": total})
            bar.total, bar.n = total, start
            bar.refresh()
            with open(part, "ab" if start else "wb") as out:
                try:
                    # as it is on the server, even where it claims to be compressed on the way;
                    # urllib3 counts the bytes and raises where some are missing
                    for chunk in response.raw.stream(CHUNK, decode_content=False):
                        out.write(chunk)
                        bar.update(len(chunk))
                except urllib3.exceptions.HTTPError as error:
                    raise _Passing(_reason(error)) from None


def sizes(urls, seconds=10.0):
    """{url: bytes or None} as servers tell them; None where none did in that time."""
    import requests

    def ask(url):
        if urlsplit(url).scheme == "file":
            return Path(url2pathname(urlsplit(url).path)).stat().st_size
        answer = requests.head(
            url, timeout=seconds / 2, allow_redirects=True, headers={"Accept-Encoding": "identity"}
        )
        length = answer.headers.get("Content-Length", "")
        is_file = answer.ok and "text/html" not in answer.headers.get("Content-Type", "")
        return int(length) if is_file and length.isdigit() else None

    found = dict.fromkeys(urls)
    for url, result in _in_threads(ask, urls, jobs=8, seconds=seconds):
        found[url] = None if isinstance(result, BaseException) else result
    return found


def _in_threads(function, items, jobs, seconds=None):
    """Yield (item, result or exception) as they come, for at most so many seconds.

    The threads do not keep the process alive: what stops the caller stops them.
    """
    todo, done = queue.SimpleQueue(), queue.SimpleQueue()
    for item in items:
        todo.put(item)

    def work():
        while True:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((item, function(item)))
            except BaseException as error:  # the caller decides what becomes of it
                done.put((item, error))

    for _ in range(min(jobs, len(items))):
        threading.Thread(target=work, daemon=True).start()
    end = None if seconds is None else time.monotonic() + seconds
    for _ in items:
        try:
            yield done.get(timeout=None if end is None else max(0.01, end - time.monotonic()))
        except queue.Empty:
            return


def _check_kind(url, file_path, path):
    """Raise ``ValueError`` where a file does not begin as the name ``path`` says."""
    kinds = BEGINS.get(path.suffix.lower())
    with open(file_path, "rb") as file:
        begin = file.read(40)
    if not begin or kinds and not begin.startswith(kinds):
        what = f"begins with {begin!r}" if begin else "is empty"
        raise ValueError(
            f"{url} is no {path.suffix} file, it {what}; open the address in a browser to see why, "
            f"and put the right file at {path}"
        )


def _check_page(url, path, response):
    """Raise ``ValueError`` where a server sends a web page in place of a file."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and path.suffix.lower() not in (
        ".html", ".htm",
    ):  # fmt: skip
        begin = next(itertools.chain(response.iter_content(80), [b""]))
        raise ValueError(
            f"{url} gives a web page in place of {path.name.partition('-')[2]} ({begin!r}); open "
            f"the address in a browser, and put the file at {path}"
        )


def _version(headers):
    """What names this very version of a file: a strong ETag, or when it was changed."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _reason(error):
    """The innermost cause of a failed request, in a few words."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"


def _seconds(text):
    return float(text) if text and text.isdigit() else 0.0


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _beside(path, suffix):
    return path.with_name(path.name + suffix)
