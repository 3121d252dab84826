"""Shortlists: which target pieces may translate which source pieces."""

import random

import numpy as np
import pytest

from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.export import shortlist as module
from fairseq_plugins.export.shortlist import likely_translations, read_pieces, write_shortlist
from tests.fixtures.models import read_text, toy_lines, toy_vocabulary, write_text

SIZE = 30


def pairs_of(number, seed=1):
    """Pairs in which source piece n is translated by n + 1, in any order."""
    chance = random.Random(seed)
    pairs = []
    for _ in range(number):
        src = [chance.randrange(SIZE - 5) for _ in range(chance.randint(1, 6))]
        tgt = [piece + 1 for piece in src]
        chance.shuffle(tgt)
        pairs.append((np.array(src), np.array(tgt)))
    return pairs


def test_the_likeliest_translation_is_the_right_one():
    found = likely_translations(pairs_of(400), SIZE, SIZE)
    assert [numbers[0] for numbers in found[: SIZE - 5]] == [n + 1 for n in range(SIZE - 5)]
    assert all(len(numbers) == 0 for numbers in found[SIZE - 5 :])  # did not occur


def test_what_stands_in_every_line_is_put_down_to_no_source_piece():
    # otherwise 0 were as good a translation of every piece as its own
    pairs = [(np.array([number]), np.array([0, number + 1])) for number in range(1, 20)] * 3
    found = likely_translations(pairs, 20, 21)
    assert [numbers.tolist() for numbers in found[1:]] == [[n + 1, 0] for n in range(1, 20)]


def test_candidates_are_limited_and_come_by_falling_probability():
    pairs = pairs_of(400)
    all_of_them = likely_translations(pairs, SIZE, SIZE, likely=SIZE)
    for number in (1, 3):
        few = likely_translations(pairs, SIZE, SIZE, likely=number)
        for ours, theirs in zip(few, all_of_them, strict=True):
            assert ours.tolist() == theirs[:number].tolist()


def test_neither_the_order_of_the_lines_nor_batches_matter(monkeypatch):
    pairs = pairs_of(300)
    found = likely_translations(pairs, SIZE, SIZE)
    monkeypatch.setattr(module, "BATCH_LINES", 7)
    again = likely_translations(pairs[::-1], SIZE, SIZE)
    assert [n[:1].tolist() for n in again] == [n[:1].tolist() for n in found]
    assert [set(n) for n in again] == [set(n) for n in found]


def test_what_one_piece_explains_is_not_taken_for_the_translation_of_another():
    # 2 translates 1, as the first pair shows, so 4 is left for 3; at first sight both are as likely
    pairs = [(np.array([1]), np.array([2]))] + [(np.array([1, 3]), np.array([2, 4]))] * 10
    at_first, found = (
        likely_translations(pairs, 5, 5, likely=1, iterations=number)[3].tolist()
        for number in (1, 5)
    )
    assert (at_first, found) == ([2], [4])


# -- the file ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shortlist")
    toy_vocabulary(folder / "vocabulary")
    (folder / "text").mkdir()
    lines = toy_lines(60, seed=3)
    write_text(folder / "text" / "train.de", lines)
    write_text(folder / "text" / "train.en", [line.replace("ba", "lu") for line in lines])
    return folder


def rules(path):
    return {key: found.split(" ") for key, found in (line.split("\t") for line in read_text(path))}


def test_the_file_has_the_frequent_pieces_the_likely_ones_and_each_itself(place, tmp_path):
    vocabulary = read_vocabulary(place / "vocabulary")
    made = write_shortlist(tmp_path, [place / "text"], vocabulary, likely=4, frequent=6)
    assert made == {"likely": 4, "frequent": 6, "pairs": 60}
    found = rules(tmp_path / "vmap.txt")
    pieces = [line.split(" ")[0] for line in read_text(place / "vocabulary" / "dict.en.txt")]
    # every piece has a rule, and may be copied
    assert list(found) == ["", *pieces]
    assert all(piece in found[piece] for piece in pieces)
    assert max(map(len, (found[piece] for piece in pieces))) <= 5
    written = [piece for line in vocabulary.subwords("en").encode_batch(
        read_text(place / "text" / "train.en")) for piece in line]  # fmt: skip
    assert len(found[""]) == 6
    assert min(map(written.count, found[""])) >= max(
        written.count(piece) for piece in pieces if piece not in found[""]
    )
    # unseen pieces have nothing but themselves
    assert found["<0xFE>"] == ["<0xFE>"]


def test_the_same_text_gives_the_same_bytes(place, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shortlist(tmp_path / name, [place / "text"], read_vocabulary(place / "vocabulary"))
    assert (tmp_path / "a/vmap.txt").read_bytes() == (tmp_path / "b/vmap.txt").read_bytes()


def test_lines_are_taken_evenly_from_all_folders(place, tmp_path):
    vocabulary = read_vocabulary(place / "vocabulary")
    *_, pairs = read_pieces([place / "text"] * 2, vocabulary)
    assert len(pairs) == 120
    *_, some = read_pieces([place / "text"] * 2, vocabulary, lines=50)
    assert [src.tolist() for src, _ in some] == [src.tolist() for src, _ in pairs[::3]]


@pytest.mark.parametrize(
    "flags, message",
    [({"likely": 0}, "--shortlist-likely is 1 or more, not 0"),
     ({"frequent": 0}, "--shortlist-frequent is 1 or more, not 0")],
)  # fmt: skip
def test_bad_numbers_are_refused(flags, message, place, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_shortlist(tmp_path, [place / "text"], read_vocabulary(place / "vocabulary"), **flags)


def test_text_that_is_none_is_refused(place, tmp_path):
    vocabulary = read_vocabulary(place / "vocabulary")
    with pytest.raises(FileNotFoundError, match="train.de is missing"):
        write_shortlist(tmp_path, [tmp_path], vocabulary)
    for name, lines in (("train.de", ["ba", ""]), ("train.en", ["", "ba"])):
        write_text(tmp_path / name, lines)
    with pytest.raises(ValueError, match="hold no pair to learn a shortlist of"):
        write_shortlist(tmp_path, [tmp_path], vocabulary)
    (tmp_path / "train.de").write_text("")
    (tmp_path / "train.en").write_text("")
    with pytest.raises(ValueError, match="hold no pair"):
        write_shortlist(tmp_path, [tmp_path], vocabulary)
    assert not (tmp_path / "vmap.txt").exists()
