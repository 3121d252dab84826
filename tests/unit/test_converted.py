"""generation/converted.py: subword-nmt codes, to pieces and back."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from data_prep import subwords as module
from data_prep.files import one_line
from data_prep.subwords import PairCodes
from tests.fixtures.bitext import TRAIN, write_side

TEXT = [text for pair in TRAIN for text in pair]
CODES = io.StringIO()
learn_bpe(io.StringIO("\n".join(TEXT)), CODES, 60)
CODES = CODES.getvalue().splitlines()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "source.bpe"
    write_side(path, CODES)
    return path


@pytest.fixture(scope="module")
def codes(path):
    return PairCodes.load(path)


def test_pieces_are_those_of_subword_nmt(codes):
    theirs = BPE(io.StringIO("\n".join(CODES)))
    lines = [*TEXT, "Die Überfahrt war teuer, sagte sie."]
    assert codes.encode_batch(lines) == [theirs.segment(line).split(" ") for line in lines]
    assert any(piece.endswith("@@") for piece in codes.encode(lines[-1]))


@pytest.mark.parametrize("line", ["", " ", "Ja… nein.", "a\u2028b\u3000c\td", "Grüße @ @@ a@@b @@c",
                                  "你好 世界", "\U0001f600", "x" * 3000])  # fmt: skip
def test_awkward_lines_survive(codes, line):
    pieces = codes.encode(line)
    assert codes.decode(pieces) == one_line(line)
    assert not any(piece == "" or " " in piece for piece in pieces)


@given(line=st.text())
def test_decoding_restores_the_line(codes, line):
    assert codes.decode(codes.encode(line)) == one_line(line)


def test_a_piece_that_the_model_lacks_is_split_further(path, codes):
    whole = codes.encode("Nummer")
    assert len(whole) == 1
    known = {f"{letter}@@" for letter in "Numer"} | {"r"}
    split = PairCodes.load(path, known=known).encode("Nummer")
    assert split == ["N@@", "u@@", "m@@", "m@@", "e@@", "r"]
    assert PairCodes.load(path, known=known | set(whole)).encode("Nummer") == whole


def test_the_pieces_that_codes_make_are_listed(codes):
    made = {piece for line in codes.encode_batch(TEXT) for piece in line}
    letters = {piece for piece in made if len(piece.removesuffix("@@")) == 1}
    assert made - letters <= codes.pieces


def test_words_are_remembered_up_to_a_number(path, monkeypatch):
    monkeypatch.setattr(module, "CACHED_WORDS", 10)
    codes = PairCodes.load(path)
    lines = [f"Haus{number}" for number in range(100)]
    assert [codes.decode(pieces) for pieces in codes.encode_batch(lines)] == lines
    assert len(codes._bpe.cache) <= 11


@pytest.mark.parametrize(
    "lines, message",
    [
        (["#version: 0.1", *CODES[1:]], "line 1: subword-nmt codes begin with '#version: 0.2'"),
        (CODES[1:], "line 1: subword-nmt codes begin"),
        ([*CODES[:3], "a b 17"], "line 4: expected two symbols and one space, found 'a b 17'"),
        ([*CODES[:3], ""], "line 4: expected two symbols"),
    ],
)
def test_other_codes_are_refused_and_do_not_end_the_process(lines, message, tmp_path):
    write_side(tmp_path / "source.bpe", lines)
    with pytest.raises(ValueError, match=r"source\.bpe") as raised:
        PairCodes.load(tmp_path / "source.bpe")
    assert message in str(raised.value)
