"""data_prep/download.py: a file comes whole, once, whatever the server and the line do."""

import gzip
import hashlib
import os

import pytest

from data_prep import download
from data_prep.download import Cache, sizes
from data_prep.files import sha256
from tests.fixtures.file_server import serving

DATA = b"PK\x03\x04" + os.urandom(300_000)
NAME = "corpus.zip"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    return Cache(tmp_path / "cache", tries=3)


# -- what heals ----------------------------------------------------------------------------


def test_a_file_comes_whole_and_is_recorded(server, cache):
    url = server.add(NAME, DATA)
    path = cache.get(url, NAME)
    assert path.read_bytes() == DATA
    assert path.parent.name == "127.0.0.1" and path.name.endswith(f"-{NAME}")
    record = cache.record(path)
    assert record["url"] == url
    assert record["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert record["bytes"] == len(DATA)
    assert server.headers["Accept-Encoding"] == "identity"  # or what is got is not what is there
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.json"]


def test_what_is_there_is_not_asked_for_again(server, cache):
    url = server.add(NAME, DATA)
    assert cache.get(url, NAME) == cache.get(url, NAME)
    assert len(server.requests) == 1


def test_a_cut_connection_goes_on_where_it_stopped(server, cache):
    url = server.add(NAME, DATA, faults=[("cut", 100_000), ("cut", 50_000)])
    assert cache.get(url, NAME).read_bytes() == DATA
    assert server.asked() == [None, "bytes=100000-", "bytes=150000-"]


def test_progress_counts_as_no_failure(server, cache):
    url = server.add(NAME, DATA, faults=[("cut", 50_000)] * 5)  # more than there are tries
    assert cache.get(url, NAME).read_bytes() == DATA


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, cache):
    url = server.add(NAME, DATA, faults=[("cut", 100_000), 503, 503, 503])
    with pytest.raises(ValueError, match="503.*3 tries.*100,000 bytes have come, run the same"):
        cache.get(url, NAME)
    assert not cache.place(url, NAME).exists()
    assert cache.get(url, NAME).read_bytes() == DATA
    assert server.asked()[-1] == "bytes=100000-"


def test_a_file_that_changed_between_two_tries_is_fetched_anew(server, cache):
    newer = b"PK\x03\x04" + bytes(reversed(DATA))

    def change(server):
        server.files[f"/{NAME}"], server.tags[f"/{NAME}"] = newer, '"newer"'

    url = server.add(NAME, DATA, faults=[("cut", 100_000), change])
    assert cache.get(url, NAME).read_bytes() == newer


def test_a_server_that_gives_no_parts_starts_over(server, cache):
    server.ranges = False
    url = server.add(NAME, DATA, faults=[("cut", 100_000)])
    assert cache.get(url, NAME).read_bytes() == DATA


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_parts_of_a_file_that_has_no_version_are_not_joined(server, cache, tag):
    fault = ("headers", {"ETag": tag, "Content-Length": str(len(DATA) + 1)})  # ends too early
    url = server.add(NAME, DATA, faults=[fault])
    assert cache.get(url, NAME).read_bytes() == DATA
    assert server.asked() == [None, None]


def test_another_piece_than_asked_for_is_not_joined(server, cache):
    wrong = ("headers", {"Content-Range": "bytes 7-99/100"})
    url = server.add(NAME, DATA, faults=[("cut", 100_000), wrong])
    assert cache.get(url, NAME).read_bytes() == DATA
    assert server.asked() == [None, "bytes=100000-", None]


def test_more_bytes_than_the_file_has_are_dropped(server, cache):
    url = server.add(NAME, DATA, tag='"same"', faults=[("cut", 100_000), *[503] * 3])
    with pytest.raises(ValueError, match="503"):
        cache.get(url, NAME)
    server.files[f"/{NAME}"] = DATA[:50_000]
    assert cache.get(url, NAME).read_bytes() == DATA[:50_000]


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, cache, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    url = server.add(NAME, DATA, faults=[(503, {"Retry-After": "33"})])
    assert cache.get(url, NAME).read_bytes() == DATA
    assert waits == [33.0]
    assert len(server.requests) == 2


def test_bytes_that_all_came_before_a_kill_are_not_fetched_again(server, cache):
    url = server.add(NAME, DATA)
    path = cache.place(url, NAME)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(DATA)
    path.with_name(path.name + ".part.json").write_text(f'{{"version": "x", "bytes": {len(DATA)}}}')
    assert cache.get(url, NAME).read_bytes() == DATA
    assert server.requests == []


def test_a_file_of_the_cache_that_was_changed_is_fetched_again(server, cache, capsys):
    url = server.add(NAME, DATA)
    path = cache.get(url, NAME)
    path.write_bytes(DATA[:-1] + b"!")
    assert cache.get(url, NAME).read_bytes() == DATA
    assert "is no longer the file that was downloaded" in capsys.readouterr().err


def test_a_file_put_in_its_place_by_hand_is_taken_and_recorded(server, cache):
    url = server.add(NAME, DATA)
    path = cache.place(url, NAME)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert cache.get(url, NAME) == path
    assert server.requests == [] and cache.record(path)["sha256"] == sha256(path)


def test_two_that_want_one_file_fetch_it_once(server, cache):
    url = server.add(NAME, DATA)
    got = dict(download._in_threads(lambda _: cache.get(url, NAME), ["one", "two"], jobs=2))
    assert got == {"one": cache.place(url, NAME), "two": cache.place(url, NAME)}
    assert len(server.requests) == 1


# -- what is an error ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_an_error_at_once(server, cache, status):
    url = server.add(NAME, DATA, faults=[status])
    with pytest.raises(ValueError, match=f"{url}: the server answers {status}.*put it at"):
        cache.get(url, NAME)
    assert len(server.requests) == 1


def test_a_web_page_in_place_of_a_file_is_an_error(server, cache):
    fault = ("headers", {"Content-Type": "text/html; charset=utf-8"})
    url = server.add(NAME, b"<html>Please confirm", faults=[fault])
    with pytest.raises(ValueError, match="gives a web page in place of corpus.zip.*confirm"):
        cache.get(url, NAME)
    assert not cache.place(url, NAME).exists()


@pytest.mark.parametrize("name", ["a.zip", "a.gz", "a.tgz", "a.tar.gz", "a.bz2", "a.xz", "a.zst"])
def test_a_file_that_is_not_of_its_kind_is_an_error(server, cache, name):
    url = server.add(name, b"<!doctype html>")
    with pytest.raises(ValueError, match=r"is no \.\w+ file, it begins with b'<!doctype html>'"):
        cache.get(url, name)
    assert not [file for file in cache.folder.rglob("*") if file.is_file()]


def test_an_empty_file_is_an_error(server, cache):
    with pytest.raises(ValueError, match="is no .txt file, it is empty"):
        cache.get(server.add("a.txt", b""), "a.txt")


def test_a_later_different_file_is_an_error_that_names_both(server, cache):
    url = server.add(NAME, DATA)
    path = cache.get(url, NAME)
    first = sha256(path)
    path.unlink()
    other = DATA + b"more"
    server.add(NAME, other)
    with pytest.raises(ValueError, match="gives another file than before") as caught:
        cache.get(url, NAME)
    assert first in str(caught.value) and hashlib.sha256(other).hexdigest() in str(caught.value)
    assert not path.exists()
    path.with_name(path.name + ".json").unlink()  # as the message says
    assert cache.get(url, NAME).read_bytes() == other


def test_a_server_that_is_not_there_is_an_error_that_says_where_to_put_the_file(cache):
    with serving() as server:
        url = server.add(NAME, DATA)
    message = r"zip: ConnectionRefusedError: .*\(3 tries\).*put the file at .*corpus\.zip"
    with pytest.raises(ValueError, match=message):
        cache.get(url, NAME)


def test_a_full_disk_is_an_error_at_once(server, cache, monkeypatch):
    url = server.add(NAME, DATA)
    monkeypatch.setattr(
        download, "open", lambda path, mode: open("/dev/full" if mode == "wb" else path, mode),
        raising=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"^{url}: .*No space left"):
        cache.get_all({url: ""}, jobs=1)
    assert len(server.requests) == 1


def test_an_address_that_is_none_is_an_error(cache):
    with pytest.raises(ValueError, match="nohost"):
        cache.get("ftp://nohost/a.zip", "a.zip")


# -- several, local, sizes -------------------------------------------------------------------


def test_files_that_can_be_had_are_kept_when_others_fail(server, cache):
    good, bad, gone = (server.add(name, DATA) for name in ("a.zip", "b.zip", "c.zip"))
    server.faults["/b.zip"], server.faults["/c.zip"] = [404], [410]
    with pytest.raises(ValueError, match="2 of 3 files were not fetched") as caught:
        cache.get_all({url: "" for url in (bad, good, gone)}, jobs=2)
    assert "404" in str(caught.value) and "410" in str(caught.value)
    assert cache.place(good, "").read_bytes() == DATA


def test_several_files_come_with_fewer_threads(server, cache):
    urls = [server.add(f"{n}.zip", DATA + bytes([n])) for n in range(5)]
    paths = cache.get_all(dict.fromkeys(urls, ""), jobs=2)
    assert [paths[url].read_bytes()[-1] for url in urls] == [0, 1, 2, 3, 4]


def test_a_local_address_is_read_where_it_is(tmp_path, cache):
    path = tmp_path / "my corpus.gz"
    path.write_bytes(gzip.compress(b"x"))
    assert cache.get(path.as_uri(), "") == path
    path.unlink()
    with pytest.raises(FileNotFoundError, match="my corpus.gz"):
        cache.get(path.as_uri(), "")


def test_addresses_without_a_file_name_get_the_given_one(cache):
    one = cache.place("https://a.example/uc?export=download&id=1", "sets.tar.gz")
    two = cache.place("https://a.example/uc?export=download&id=2", "sets.tar.gz")
    assert one != two and one.name.endswith("-sets.tar.gz")
    assert cache.place("https://a.example/x/%2e%2e%2fde.zip", "n").parent == one.parent
    assert cache.place("https://a.example/x/..", "n").name.endswith("-n")


def test_sizes_are_asked_for_and_may_be_unknown(server, tmp_path):
    here = server.add(NAME, DATA)
    local = tmp_path / "a.gz"
    local.write_bytes(b"123")
    with serving() as other:
        gone = other.add(NAME, DATA)
    urls = [here, f"{server.url}/nothing.zip", gone, local.as_uri()]
    assert list(sizes(urls, seconds=5).values()) == [len(DATA), None, None, 3]
    assert server.asked("GET") == []
