"""data_prep/files.py: lines end at a line feed alone; files are whole or absent."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.files import (
    copy_text,
    count_lines,
    find_text,
    one_line,
    read_bitext,
    read_lines,
    sha256,
    write_whole,
    write_whole_folder,
)
from tests.fixtures.bitext import PACK, write_side

# every character at which some reader of text files would end a line
SEPARATORS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


# -- reading -------------------------------------------------------------------------------


def test_without_the_package_only_zst_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.files.zstd", None)
    for name in "plain.de", "packed.de.gz", "packed.de.zst":
        (tmp_path / name).write_bytes(PACK[Path(name).suffix](b"ja\n") if name != "plain.de"
                                      else b"ja\n")  # fmt: skip
    assert list(read_lines(tmp_path / "plain.de")) == ["ja"]
    assert list(read_lines(tmp_path / "packed.de.gz")) == ["ja"]
    with pytest.raises(ValueError, match="packed.de.zst needs the package backports.zstd"):
        list(read_lines(tmp_path / "packed.de.zst"))



@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_only_a_line_feed_ends_a_line(tmp_path, separator, suffix):
    lines = [f"one{separator}and more", "two", f"three{separator}", f"{separator}four"]
    write_side(tmp_path / f"a{suffix}", lines)
    assert list(read_lines(tmp_path / f"a{suffix}")) == lines


@pytest.mark.parametrize(
    "data, lines",
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\n", ["a", ""]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"a\r\n", ["a\r"]),
    ],
)
def test_lines_of_a_file(tmp_path, data, lines):
    (tmp_path / "a").write_bytes(data)
    assert list(read_lines(tmp_path / "a")) == lines
    assert count_lines(tmp_path / "a") == len(lines)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_text_that_is_not_utf8_is_named_by_file_line_and_column(tmp_path, suffix):
    path = tmp_path / f"train.de{suffix}"
    data = "gut\nsüß\n".encode() + "schön\n".encode("latin-1")
    path.write_bytes(PACK.get(suffix, bytes)(data))
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 3: not UTF-8 (byte 0xf6 at "
                                                   "column 4)")):  # fmt: skip
        list(read_lines(path))


@pytest.mark.parametrize("suffix", PACK)
def test_a_truncated_archive_is_named(tmp_path, suffix):
    path = tmp_path / f"train.de{suffix}"
    whole = PACK[suffix](b"".join(b"line %d of many\n" % n for n in range(5000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged after line ")):
        list(read_lines(path))


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_that_only_claims_to_be_an_archive_is_named(tmp_path, suffix):
    path = tmp_path / f"train.de{suffix}"
    path.write_bytes(b"plain text\n")
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged after line 0")):
        list(read_lines(path))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="train.de is missing"):
        list(read_lines(tmp_path / "train.de"))
    with pytest.raises(ValueError, match="is a folder"):
        list(read_lines(tmp_path))


@pytest.mark.parametrize("shorter, longer", [("de", "en"), ("en", "de")])
def test_bitext_of_unequal_length_is_an_error_at_the_line_where_one_side_ends(
    tmp_path, shorter, longer
):
    write_side(tmp_path / f"train.{shorter}", ["a", "b"])
    write_side(tmp_path / f"train.{longer}", ["a", "b", "c"])
    with pytest.raises(ValueError, match=rf"at line 3: \S+train\.{shorter} has only 2 lines"):
        list(read_bitext(tmp_path / "train.de", tmp_path / "train.en"))


def test_bitext_is_numbered_from_one(tmp_path):
    write_side(tmp_path / "a", ["a", "b"])
    write_side(tmp_path / "b", ["c", "d"])
    assert list(read_bitext(tmp_path / "a", tmp_path / "b")) == [(1, "a", "c"), (2, "b", "d")]


@pytest.mark.parametrize("suffix", PACK)
def test_a_text_is_found_plain_or_packed_but_not_both(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match="dev.de is missing"):
        find_text(tmp_path, "dev", "de")
    write_side(tmp_path / f"dev.de{suffix}", ["a"])
    assert find_text(tmp_path, "dev", "de").name == f"dev.de{suffix}"
    write_side(tmp_path / "dev.de", ["a"])
    with pytest.raises(ValueError, match=f"dev.de and dev.de{suffix} exist"):
        find_text(tmp_path, "dev", "de")
    (tmp_path / f"dev.de{suffix}").unlink()
    assert find_text(tmp_path, "dev", "de").name == "dev.de"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_copied_text_has_the_same_bytes_unpacked(tmp_path, suffix):
    data = b"\xef\xbb\xbfodd\r\nline\xe2\x80\xa8and no end"
    (tmp_path / f"a{suffix}").write_bytes(PACK.get(suffix, bytes)(data))
    copy_text(tmp_path / f"a{suffix}", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


# -- one line ------------------------------------------------------------------------------


@given(st.text())
def test_one_line_has_nothing_at_which_a_reader_would_split(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert line.split() == line.split(" ") or not line
    assert not any(unicodedata.category(character) == "Cc" for character in line)


@given(st.text())
def test_one_line_is_a_fixed_point(text):
    assert one_line(one_line(text)) == one_line(text)


@given(st.lists(st.text(alphabet="abcäß你", min_size=1), max_size=5))
def test_one_line_keeps_words(words):
    assert one_line("\u2028 \t".join(words)) == " ".join(words)


# -- writing -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_a_written_file_appears_only_when_it_is_complete(tmp_path, name):
    with write_whole(tmp_path / name) as out:
        out.write("a\u2028b\r\n")
        assert not (tmp_path / name).exists()
    assert list(read_lines(tmp_path / name)) == ["a\u2028b\r"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", PACK)
def test_a_packed_file_has_the_same_bytes_every_time(tmp_path, suffix):
    for name in (f"a{suffix}", f"b{suffix}"):
        with write_whole(tmp_path / name) as out:
            out.write("text\n")
    assert sha256(tmp_path / f"a{suffix}") == sha256(tmp_path / f"b{suffix}")


def test_after_an_exception_the_old_file_stands_and_no_part_of_the_new_one(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), write_whole(tmp_path / "a") as out:
        out.write("new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_after_an_exception_no_part_of_a_folder_is_left(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_whole_folder(tmp_path / "x") as part:
        (part / "a").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with write_whole_folder(tmp_path / "deep" / "x") as part:
        (part / "a").write_text("whole")
        assert not (tmp_path / "deep" / "x").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x"]
    assert (tmp_path / "deep" / "x" / "a").read_text() == "whole"


def test_what_a_killed_run_left_does_not_get_into_the_folder(tmp_path):
    (tmp_path / "x.part").mkdir()
    (tmp_path / "x.part" / "stale").write_text("from a killed run")
    with write_whole_folder(tmp_path / "x") as part:
        (part / "a").write_text("whole")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"]


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").write_text("old")
    with pytest.raises(FileExistsError, match="exists"), write_whole_folder(tmp_path / "x"):
        pass
    with write_whole_folder(tmp_path / "x", replace=True) as part:
        (part / "new").write_text("new")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_place_where_no_folder_can_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError) as fault, write_whole_folder(tmp_path / "file" / "x"):
        pass
    assert "file" in str(fault.value)
