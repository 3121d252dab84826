"""data_prep/subwords.py: whatever the line, pieces that fairseq can read, and the line again."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.learn_subwords import learn_sentencepieces
from data_prep.subwords import SentencePieces, printable
from data_prep.vocabulary import MODEL_FILE
from tests.fixtures.bitext import TRAIN

MODEL = learn_sentencepieces([text for pair in TRAIN for text in pair], 305)

AWKWARD = [
    "",
    " ",
    "\t\r\v\f",
    "two\rparts",
    "a\u2028b\u2029c\x85d",
    "no\u00a0break\u3000wide\u2009thin",
    "nul\x00 and bell\x07",
    "\ufeffmark",
    "<unk> <s> </s> <pad> <0x0A> <0x41>",
    "▁ word ▁start",
    "reserved ▅ block",
    "Straße, ½ … ﬁ ²",
    "u\u0308 decomposed",
    "你好，世界。",
    "👩‍👩‍👧 \U0001f1e9\U0001f1ea",
    "\U0010ffff\ufffe",
    "x" * 3000,
    "word " * 10_000,
]


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / MODEL_FILE
    path.write_bytes(MODEL)
    return SentencePieces.load(path)


def as_fairseq_reads(pieces):
    """Lines of tokens that fairseq sees in a file with these pieces on one line."""
    text = io.TextIOWrapper(io.BytesIO((" ".join(pieces) + "\n").encode()), encoding="utf-8")
    return [line.split() for line in text]


@pytest.mark.parametrize("line", AWKWARD, ids=lambda line: ascii(line[:20]))
def test_awkward_lines_survive(subwords, line):
    pieces = subwords.encode(line)
    assert as_fairseq_reads(pieces) == [pieces]
    assert subwords.decode(pieces) == printable(line)
    assert "<unk>" not in pieces


@given(line=st.text())
def test_pieces_are_read_back_by_fairseq_as_they_were_written(subwords, line):
    pieces = subwords.encode(line)
    assert as_fairseq_reads(pieces) == [pieces]


@given(line=st.text())
def test_decoding_restores_the_line(subwords, line):
    assert subwords.decode(subwords.encode(line)) == printable(line)


@given(lines=st.lists(st.text()))
def test_a_batch_is_encoded_line_by_line(subwords, lines):
    assert subwords.encode_batch(lines, threads=2) == [subwords.encode(line) for line in lines]


@given(
    pieces=st.lists(
        st.sampled_from(["▁Das", "a", "<0x0A>", "<0x0D>", "<0xE2>", "<0x80>", "<0xA8>", "<unk>",
                         "</s>", "<s>", "no such piece", "▁", "\r", "\n"])
    )
)  # fmt: skip
def test_whatever_a_model_emits_decodes_to_one_line(subwords, pieces):
    assert len(subwords.decode(pieces).splitlines()) <= 1


def test_text_is_not_rewritten(subwords):
    assert subwords.decode(subwords.encode("½ … ﬁ ² ，")) == "½ … ﬁ ² ，"


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"subwords\.model is missing"):
        SentencePieces.load(tmp_path / MODEL_FILE)


@pytest.mark.parametrize(
    "data", [b"", b"not a model", MODEL[:-100], MODEL[: len(MODEL) // 2], MODEL[100:]],
    ids=["empty", "text", "end lost", "half lost", "start lost"],
)  # fmt: skip
def test_a_damaged_model_is_named(tmp_path, data):
    (tmp_path / MODEL_FILE).write_bytes(data)
    with pytest.raises(ValueError, match=r"subwords\.model is not a SentencePiece model"):
        SentencePieces.load(tmp_path / MODEL_FILE)
