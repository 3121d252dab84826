"""Batches and length limits."""

from hypothesis import given
from hypothesis import strategies as st

from fairseq_plugins.generation.decoding import Decoding, length_class

LENGTHS = st.lists(st.integers(1, 300), max_size=60)


@given(LENGTHS, st.integers(1, 2000))
def test_every_sentence_is_in_one_batch(lengths, batch_tokens):
    sentences = [["x"] * length for length in lengths]
    batches = list(Decoding(batch_tokens=batch_tokens).batches(sentences))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 2000))
def test_a_batch_stays_within_its_tokens_unless_it_is_one_sentence(lengths, batch_tokens):
    sentences = [["x"] * length for length in lengths]
    for batch in Decoding(batch_tokens=batch_tokens).batches(sentences):
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * (longest + 1) <= batch_tokens


@given(LENGTHS)
def test_the_sentences_of_a_batch_share_a_length_limit(lengths):
    decoding = Decoding(batch_tokens=10_000)
    for batch in decoding.batches([["x"] * length for length in lengths]):
        limits = {decoding.length_limit(lengths[index], 1024) for index in batch}
        assert len(limits) == 1


@given(st.integers(1, 1000))
def test_a_translation_may_be_twice_as_long_and_10_more(pieces):
    limit = Decoding().length_limit(pieces, 10_000)
    assert 2 * pieces + 10 <= limit <= max(4 * pieces, 16) + 10
    assert length_class(pieces) >= pieces


def test_limits_end_where_the_model_has_no_positions():
    assert Decoding().length_limit(500, 64) == 63
    assert Decoding(max_length=20).length_limit(500, 64) == 20
    assert Decoding(max_length=200).length_limit(500, 64) == 63
