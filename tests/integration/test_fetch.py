"""python -m data_prep.fetch: from a catalogue, a local index and a server to a raw folder.

Sentences: tatoeba.org (CC BY 2.0 FR).
"""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from data_prep import download, fetch
from data_prep.catalogue import COLUMNS
from data_prep.files import read_lines, sha256
from data_prep.manifest import read_manifest
from tests.fixtures.bitext import ROOT, read_side, write_side
from tests.fixtures.file_server import serving

DE = ["Wie geht's?", "Gut.", "Es regnet.", "Ich weiß es nicht."]
EN = ["How are you?", "Well.", "It's raining.", "I don't know."]
TALKS = [
    "talk_name\ten\tde",
    "first_talk\tIt &apos;s raining .\tEs regnet .",
    "first_talk\tHello .\t__NULL__",
    "second_talk\tWhat time is it ?\tWie spät ist es ?",
]


class World:
    """A folder with a catalogue, a cache whose index knows a few sets, and a server of files."""

    def __init__(self, folder, server):
        self.folder, self.server, self.cache = folder, server, folder / "cache"
        self.catalogue = folder / "mine.tsv"
        self.catalogue.write_text("\t".join((*COLUMNS, "notes")) + "\n", encoding="utf-8")
        self.cache.mkdir()

    def row(self, id, source, role="train", domain="medical", notes=""):
        with open(self.catalogue, "a", encoding="utf-8") as out:
            line = [id, "de-en", domain, role, source, f"licence of {id}", "A 2020", notes]
            out.write("\t".join(line) + "\n")

    def known(self, did, url, **about):
        """A set that mtdata's index is said to know."""
        with open(self.cache / "known_sets.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps({"did": did, "url": url, **about}) + "\n")

    def run(self, *words, code=0, out="out"):
        """Run the command with this catalogue and cache; the raw folder."""
        out = self.folder / out
        what = [] if {"--dry-run", "--list", "--cite"} & set(words) else ["--out", str(out)]
        with pytest.raises(SystemExit) as end:
            fetch.command.run(
                lambda: fetch._main([*what, "--catalogue", str(self.catalogue),
                                     "--cache", str(self.cache), *words]), fetch.PROG,
            )  # fmt: skip
        assert end.value.code in ((None, 0) if code == 0 else (code,))
        return out


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT", 0)
    monkeypatch.setattr("data_prep.known_sets.ask_mtdata", None)
    monkeypatch.delenv("DAD_CORPORA", raising=False)
    with serving() as server:
        yield World(tmp_path, server)


def moses(licence=b"free"):
    """An archive as OPUS has them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("LICENSE", licence)
        for lang, lines in (("de", DE), ("en", EN)):
            archive.writestr(f"X.de-en.{lang}", "".join(f"{line}\n" for line in lines))
    return file.getvalue()


def talks():
    file, data = io.BytesIO(), "".join(f"{row}\n" for row in TALKS).encode()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        about = tarfile.TarInfo("all_talks_train.tsv")
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def full(world):
    """The world with an OPUS set, talks, a set the other way round, and local dev and test."""
    add = world.server.add
    world.known(
        "OPUS-x-v1-deu-eng", add("x/de-en.txt.zip", moses()), ext="zip",
        in_paths=["*.de", "*.en"], in_ext="txt", cite=["tiedemann2012parallel"],
    )  # fmt: skip
    world.known(
        "Neulab-t-1-eng-deu", add("t.tar.gz", talks()), ext="tar.gz", cols=[1, 9],
        in_paths=["all_talks_train.tsv"], in_ext="tsv",
    )  # fmt: skip
    table = "How are you?\tWie geht's?\nWell.\tGut.\n".encode()
    world.known(
        "Statmt-n-1-eng-deu", add("n.tsv.gz", gzip.compress(table)), cite=["tiedemann2012parallel"]
    )
    world.row("dev", "file:dev.{lang}", role="dev")
    # the catalogue names other columns than mtdata, as for Chinese talks
    world.row("talks", "mtdata:Neulab-t-1-eng-deu?de=3&en=2&document=1&detokenise=moses")
    world.row("opus", "mtdata:OPUS-x-v1-deu-eng", notes="noisy")
    world.row("news", "mtdata:Statmt-n-1-eng-deu")
    world.row("test", "file:test.{lang}.gz", role="test")
    for name in ("dev.de", "dev.en", "test.de.gz", "test.en.gz"):
        write_side(world.folder / name, (DE if ".de" in name else EN)[:2])
    return world


# -- what a raw folder holds -----------------------------------------------------------------


def test_a_domain_becomes_a_raw_folder_with_every_line_accounted_for(full, capsys):
    out = full.run("--pair", "de-en", "--domain", "medical")
    # sets in the order of the catalogue, each from its own order of languages
    talk = ["Es regnet.", "Wie spät ist es?"], ["It's raining.", "What time is it?"]
    assert read_side(out / "train.de") == talk[0] + DE + DE[:2]
    assert read_side(out / "train.en") == talk[1] + EN + EN[:2]
    assert read_side(out / "train.origin") == ["talks"] * 2 + ["opus"] * 4 + ["news"] * 2
    documents = ["talks:first_talk", "talks:second_talk"] + [""] * 6
    assert read_side(out / "train.documents") == documents
    for split in ("dev", "test"):
        assert read_side(out / f"{split}.de") == DE[:2]
        assert read_side(out / f"{split}.origin") == [split] * 2
        assert not (out / f"{split}.documents").exists()
    counts = read_manifest(out)["counts"]
    assert (counts["train"], counts["dev"], counts["test"]) == (8, 2, 2)
    assert counts["sets"]["talks"]["without_translation"] == 1
    assert "talks: 2 pairs (1 without translation)" in capsys.readouterr().err


def test_the_manifest_names_what_was_read_and_the_licences_go_along(full):
    out = full.run("--pair", "de-en", "--domain", "medical")
    manifest = read_manifest(out)
    url = f"{full.server.url}/x/de-en.txt.zip"
    (path,) = full.cache.glob("127.0.0.1/*-de-en.txt.zip")
    assert manifest["settings"]["downloads"][url]["sha256"] == sha256(path)
    assert manifest["settings"]["sets"]["opus"] == "mtdata:OPUS-x-v1-deu-eng"
    inputs = {full.folder / name for name in ("mine.tsv", "dev.de", "dev.en", "test.de.gz",
                                              "test.en.gz")}  # fmt: skip
    assert set(manifest["inputs"]) == {str(path) for path in inputs}
    rows = [line.split("\t") for line in read_lines(out / "licences.tsv")]
    assert rows[0] == ["id", "role", "licence", "citation", "address", "lines"]
    assert ["opus", "train", "licence of opus", "A 2020", url, "4"] in rows
    assert len(rows) == 6
    references = (out / "references.bib").read_text(encoding="utf-8")
    assert "% talks: A 2020" in references and "@inproceedings{tiedemann2012parallel" in references


def test_the_same_request_gives_the_same_bytes_without_the_server(full):
    words = ["--pair", "de-en", "--domain", "medical", "--compress", "gz"]
    first = full.run(*words).rename(full.folder / "first")
    full.server.files.clear()
    second = full.run(*words)
    names = sorted(path.name for path in first.iterdir())
    assert "train.documents.gz" in names and "train.de" not in names
    for name in names:
        if name != "manifest.json":
            assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_pair_can_be_had_the_other_way_round(full):
    out = full.run("--pair", "en-de", "--id", "opus", "--id", "talks", "--compress", "zst")
    assert list(read_lines(out / "train.en.zst"))[1:3] == ["What time is it?", "How are you?"]
    assert list(read_lines(out / "train.de.zst"))[1:3] == ["Wie spät ist es?", "Wie geht's?"]
    assert read_manifest(out)["settings"]["source_lang"] == "en"


def test_documents_and_held_out_sets_are_not_claimed_where_there_are_none(full, capsys):
    out = full.run("--id", "opus", "--id", "dev")
    assert not (out / "train.documents").exists()
    assert "no test set: `python -m data_prep.split` takes it" in capsys.readouterr().err
    full.run("--id", "dev", out="dev")  # nothing to take it from
    assert "data_prep.split" not in capsys.readouterr().err


def test_a_limit_takes_the_first_pairs_of_each_set(full):
    out = full.run("--pair", "de-en", "--domain", "medical", "--limit", "1")
    assert read_side(out / "train.de") == ["Es regnet.", DE[0], DE[0]]
    assert read_manifest(out)["settings"]["limit"] == 1


def test_a_text_of_several_lines_stays_one_line(world):
    table = 'de,en\n"Gut.\nJa, gut.",Well.\nEs\u2028regnet.,It\u0085\'s raining.\n'
    with zipfile.ZipFile(world.folder / "a.zip", "w") as archive:
        archive.writestr("a.csv", table)
    world.row("table", "file:a.zip?member=a.csv")
    write_side(world.folder / "b.de", ["M"])
    (world.folder / "b.en").write_bytes(b"M\xfcller\n")
    world.row("latin", "file:b.{lang}")
    out = world.run("--domain", "medical")
    assert read_side(out / "train.de") == ["Gut. Ja, gut.", "Es\u2028regnet.", "M"]
    assert read_side(out / "train.en") == ["Well.", "It\x85's raining.", "M\ufffdller"]
    sets = read_manifest(out)["counts"]["sets"]
    assert sets["table"]["joined_lines"] == sets["latin"]["with_bytes_not_utf8"] == 1


# -- what goes wrong -------------------------------------------------------------------------


def test_a_damaged_archive_leaves_no_folder_and_is_fetched_anew(full, capsys):
    good = full.server.files["/x/de-en.txt.zip"]
    bad = bytearray(good)
    bad[good.index("weiß".encode())] ^= 255
    full.server.files["/x/de-en.txt.zip"] = bytes(bad)
    out = full.run("--domain", "medical", "--pair", "de-en", code=1)
    error = capsys.readouterr().err
    assert "is damaged (Bad CRC-32" in error and "removed from the cache, run again" in error
    assert not out.exists() and not out.with_name("out.part").exists()
    full.server.files["/x/de-en.txt.zip"] = good
    assert read_side(full.run("--domain", "medical") / "train.de")[2:6] == DE


def test_a_damaged_file_of_yours_is_not_removed(world, capsys):
    packed = gzip.compress(b"a\n" * 5000)
    for lang in ("de", "en"):
        (world.folder / f"a.{lang}.gz").write_bytes(packed[:-10])
    world.row("a", "file:a.{lang}.gz")
    world.run("--id", "a", code=1)
    assert "a.de.gz is damaged" in capsys.readouterr().err
    assert (world.folder / "a.de.gz").exists()


def test_a_failed_download_names_the_address_and_leaves_no_folder(full, capsys):
    full.server.faults["/n.tsv.gz"] = [404]
    out = full.run("--pair", "de-en", "--domain", "medical", code=1)
    assert "1 of 3 files were not fetched" in (error := capsys.readouterr().err)
    assert f"{full.server.url}/n.tsv.gz: the server answers 404" in error
    assert not out.exists()
    full.run("--pair", "de-en", "--domain", "medical")  # and what came is kept
    assert [path for _, path, _ in full.server.requests].count("/t.tar.gz") == 1


def test_an_existing_folder_is_refused_before_anything_is_fetched(full, capsys):
    (full.folder / "out").mkdir()
    full.run("--domain", "medical", code=1)
    assert "out exists; remove it or name another place" in capsys.readouterr().err
    assert full.server.requests == []


def test_a_set_without_pairs_is_an_error(world, capsys):
    for lang in ("de", "en"):
        write_side(world.folder / f"a.{lang}", [])
    world.row("empty", "file:a.{lang}")
    world.run("--id", "empty", code=1)
    assert "empty holds no pair (0 without translation); look at" in capsys.readouterr().err


def test_a_missing_file_of_yours_is_an_error(world, capsys):
    world.row("a", "file:a.tmx")
    world.run("--domain", "medical", code=1)
    assert f"a: {world.folder / 'a.tmx'} is missing" in capsys.readouterr().err


def test_licensed_corpora_are_left_out_where_they_are_not_there(world, capsys, monkeypatch):
    world.row("coppa", "file:coppa/{pair}.tmx?absent=skip", notes="licensed: put it there")
    world.run("--domain", "medical", code=1)
    error = capsys.readouterr().err
    assert "coppa/de-en.tmx is missing (licensed: put it there); going on without it" in error
    assert "nothing is left to fetch" in error
    world.row("other", "file:a.{lang}")
    for lang, lines in (("de", DE), ("en", EN)):
        write_side(world.folder / f"a.{lang}", lines)
    world.run("--id", "coppa", "--domain", "medical", code=1)  # asked for by name
    out = world.run("--domain", "medical")
    assert set(read_side(out / "train.origin")) == {"other"}
    corpora = world.folder / "corpora"
    (corpora / "coppa").mkdir(parents=True)
    (corpora / "coppa/de-en.tmx").write_text(
        '<tmx><body><tu><tuv xml:lang="DE"><seg>Düse</seg></tuv>'
        '<tuv xml:lang="EN"><seg>nozzle</seg></tuv></tu></body></tmx>', encoding="utf-8",
    )  # fmt: skip
    monkeypatch.setenv("DAD_CORPORA", str(corpora))
    out.rename(world.folder / "before")
    assert read_side(world.run("--domain", "medical") / "train.de") == ["Düse", *DE]


def test_our_catalogue_says_where_licensed_corpora_go(world, capsys):
    world.row("other", "file:a.tmx")
    world.run("--catalogue", "built-in", "--id", "ru-en/coppa", code=1)
    error = capsys.readouterr().err
    assert "$DAD_CORPORA/coppa/ru-en.tmx is missing (licensed: put the TMX in $DAD_CO" in error


def test_sets_of_a_mirror_on_this_machine_are_read_where_they_are(world):
    path = world.folder / "n.tsv.gz"
    path.write_bytes(gzip.compress("How are you?\tWie geht's?\n".encode()))
    world.known("Statmt-n-1-eng-deu", path.as_uri())
    world.row("news", "mtdata:Statmt-n-1-eng-deu")
    out = world.run("--id", "news")
    assert read_side(out / "train.de") == DE[:1]
    manifest = read_manifest(out)
    assert manifest["inputs"][str(path)] == sha256(path)
    assert manifest["settings"]["downloads"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pair", "de-en"], "choose with --domain or --id; there is medical"),
        (["--domain", "law"], "no domain law; its domains: medical"),
        (["--id", "opus", "--limit", "0"], "--limit is a number above 0, not 0"),
        (["--id", "opus", "--jobs", "-1"], "--jobs is a number above 0, not -1"),
        (["--domain", "medical", "--catalogue", "built-in"], "choose one pair with --pair: de-en,"),
    ],
)
def test_what_cannot_be_meant_so_is_an_error(full, capsys, words, message):
    full.run(*words, code=1)
    assert message in capsys.readouterr().err


# -- what is shown ---------------------------------------------------------------------------


def test_a_dry_run_tells_sizes_places_and_licences_and_fetches_nothing(full, capsys):
    full.run("--id", "opus")
    capsys.readouterr()
    asked = len(full.server.requests)
    full.run("--domain", "medical", "--dry-run")
    shown = capsys.readouterr().out
    assert {how for how, *_ in full.server.requests[asked:]} == {"HEAD"}
    assert "opus  (train)\n  licence   licence of opus\n  cite      A 2020\n  note      noisy\n" \
        "  cached    " in shown  # fmt: skip
    assert f"fetch     {full.server.url}/t.tar.gz, {len(full.server.files['/t.tar.gz'])}B" in shown
    assert "file      " in shown and "dev.de, " in shown
    assert shown.rstrip().splitlines()[-1].startswith("2 files to fetch: ")


def test_a_dry_run_of_what_is_there_needs_no_server(full, capsys):
    full.run("--id", "opus", "--id", "dev")
    full.server.files.clear()
    full.run("--id", "opus", "--id", "dev", "--dry-run")
    assert capsys.readouterr().out.endswith("\nnothing to download\n")


def test_a_dry_run_says_so_when_nothing_can_be_reached(full, capsys):
    full.server.files.clear()
    full.run("--domain", "medical", "--dry-run")
    assert "3 files to fetch; no server told a size, are you offline?" in capsys.readouterr().out


def test_the_catalogue_can_be_printed(full, capsys):
    full.run("--list", "--domain", "medical")
    table = capsys.readouterr().out
    assert "opus" in table and "licence of talks" in table and "noisy" in table
    full.run("--list", "--json", "--id", "dev")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["role"], row["source"]) == ("dev", "dev", "file:dev.{lang}")


def test_references_can_be_printed(full, capsys):
    full.run("--cite", "--domain", "medical")
    shown = capsys.readouterr().out
    assert shown.count("@inproceedings{tiedemann2012parallel") == 1  # two sets ask for it


# -- stops, stages ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_in_mid_file_leaves_no_folder_and_the_next_run_goes_on(full, how):
    name = "/x/de-en.txt.zip"
    full.server.add(name[1:], moses(licence=os.urandom(300_000)), faults=[("stall", 200_000)])
    out = full.folder / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "data_prep.fetch", "--out", out, "--domain", "medical",
         "--catalogue", full.catalogue, "--cache", full.cache],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        parts = []
        while not (parts and parts[0].stat().st_size) and child.poll() is None:
            time.sleep(0.01)
            parts = list(full.cache.glob("*/*-de-en.txt.zip.part"))
        child.send_signal(how)
        said = child.communicate(timeout=60)[1]
    finally:
        child.kill()
    assert not out.exists()
    if how == signal.SIGINT:
        assert child.returncode == 130 and "run the same command again to go on" in said
        assert not out.with_name("out.part").exists()
    have = parts[0].stat().st_size
    assert read_side(full.run("--domain", "medical") / "train.de")[2:6] == DE
    assert ("GET", name, f"bytes={have}-") in full.server.requests


def test_the_folder_of_an_unfinished_stage_can_be_the_place(full):
    out = full.run("--id", "opus", out="raw.part")  # what dad-stage puts for {out}
    assert len(read_side(out / "train.de")) == 4


def test_sets_that_need_another_package_are_refused(world, capsys):
    world.known("Google-x-1-deu-eng", "https://huggingface.co/datasets/x", ext="hfds",
                in_paths=["x"], in_ext="hfds")  # fmt: skip
    world.row("hub", "mtdata:Google-x-1-deu-eng")
    world.run("--id", "hub", code=1)
    assert "hub: Google-x-1-deu-eng comes through the package datasets" in capsys.readouterr().err
