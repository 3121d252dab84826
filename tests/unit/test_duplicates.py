"""data_prep/cleaning/duplicates.py: of equal pairs the first stays, however many buckets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.cleaning import duplicates
from data_prep.cleaning.duplicates import Repeats
from data_prep.cleaning.steps import parse

# a few hashes that come again and again; the high half chooses the bucket
hashes = st.tuples(st.sampled_from([0, 1, 2**64 - 1, 2**63]), st.integers(0, 2))
corpora = st.lists(st.lists(hashes, min_size=1, max_size=9), max_size=9)


def repeats_in_memory(corpus):
    """[(line, first line with the same hash)], lines numbered from 1 with a gap after each."""
    first, repeats = {}, []
    for line, one in enumerate((one for batch in corpus for one in batch), start=1):
        if first.setdefault(one, 2 * line) != 2 * line:
            repeats.append((2 * line, first[one]))
    return repeats


@settings(max_examples=60, deadline=None)
@given(corpus=corpora, bucket=st.sampled_from([1, 3, 1000]), data=st.data())
def test_the_same_lines_are_found_as_with_a_dictionary(tmp_path_factory, corpus, bucket, data):
    count = sum(map(len, corpus))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BUCKET_PAIRS", bucket)
        with Repeats(tmp_path_factory.getbasetemp(), count) as repeats:
            line = 0
            for batch in corpus:
                lines = 2 * np.arange(line + 1, line + len(batch) + 1)
                repeats.add(lines, np.array(batch, dtype=np.uint64))
                line += len(batch)
            expected = repeats_in_memory(corpus)
            assert repeats.find() == len(expected)
            up_to = repeats.up_to()
            ends = sorted(data.draw(st.lists(st.integers(0, 2 * count), max_size=4)))
            begin = 0
            for end in [*ends, 2 * count]:
                here = [entry for entry in expected if begin < entry[0] <= end]
                assert up_to(end).tolist() == here
                begin = max(begin, end)


def test_nothing_is_left_on_disk(tmp_path):
    with Repeats(tmp_path, 10) as repeats:
        repeats.add(np.array([1, 2]), np.zeros((2, 2), dtype=np.uint64))
        repeats.find()
        assert not list(tmp_path.iterdir())  # the files have no name


def same(step, one, other):
    """Whether a step takes two pairs for equal."""
    found = parse(step).hashes(*zip(one, other, strict=True))
    return (found[0] == found[1]).all()


@pytest.mark.parametrize(
    "step, one, other, equal",
    [
        ("duplicate", ("a", "b"), ("a", "b"), True),
        ("duplicate", ("a", "b"), ("a", "c"), False),
        ("duplicate", ("a", "b"), ("c", "b"), False),
        ("duplicate", ("a", "b"), ("b", "a"), False),
        ("duplicate", ("a", "b"), ("A", "b"), False),
        ("duplicate", ("a b", "c"), ("a", "b c"), False),
        ("duplicate:of=source", ("a", "b"), ("a", "c"), True),
        ("duplicate:of=source", ("a", "b"), ("c", "b"), False),
        ("duplicate:of=target", ("a", "b"), ("a", "c"), False),
        ("duplicate:of=target", ("a", "b"), ("c", "b"), True),
        ("near-duplicate", ("Am 3. Mai.", "On 3 May"), ("am 14. mai", "ON 4 MAY!"), True),
        ("near-duplicate", ("Das Haus", "x"), ("Das Maus", "x"), False),
        ("near-duplicate", ("ab c", "x"), ("a bc", "x"), True),
        ("near-duplicate", ("ab", "c"), ("a", "bc"), False),
        ("near-duplicate", ("12:30", "12:30"), ("13:40", "13:40"), False),  # no letters
        ("near-duplicate", ("你好！", "Hello"), ("你好。", "hello."), True),
        ("near-duplicate", ("Мир, труд", "x"), ("мир — труд", "x"), True),
        ("near-duplicate:of=target", ("a", "b!"), ("c", "B"), True),
        ("near-duplicate:of=source", ("a", "b!"), ("c", "B"), False),
    ],
)
def test_what_is_equal(step, one, other, equal):
    assert same(step, one, other) == equal
