from collections import Counter

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from fairseq_plugins.data.mixture import MixtureDataset, parse_mixture, slices_per_pass


def bitext(size, first):
    """``size`` pairs whose source is one number, from ``first`` on."""
    dictionary = Dictionary()
    for number in range(100):
        dictionary.add_symbol(str(number))
    lengths = np.array([1 + i % 5 for i in range(size)], dtype=np.int32)
    sources = [torch.full((lengths[i],), first + i) for i in range(size)]
    return LanguagePairDataset(
        sources, lengths, dictionary, sources, lengths, dictionary, shuffle=True
    )


def drawn(dataset, epoch):
    dataset.set_epoch(epoch)
    return Counter(int(dataset[i]["source"][0]) for i in range(len(dataset)))


def test_whole_weights_repeat_every_pair_so_often():
    seen = drawn(MixtureDataset([bitext(7, 10), bitext(5, 40)], [1, 3]), epoch=1)
    assert seen == Counter({**{10 + i: 1 for i in range(7)}, **{40 + i: 3 for i in range(5)}})


def test_a_fraction_is_another_sample_in_each_pass():
    dataset = MixtureDataset([bitext(40, 10)], [0.5])
    samples = [drawn(dataset, epoch) for epoch in (1, 2)]
    assert all(sum(sample.values()) == 20 and max(sample.values()) == 1 for sample in samples)
    assert samples[0] != samples[1]


def test_slices_of_a_pass_hold_every_pair_once():
    dataset = MixtureDataset([bitext(10, 10), bitext(9, 40)], [1, 1], slices=4)
    whole = sum((drawn(dataset, epoch) for epoch in (1, 2, 3, 4)), Counter())
    assert set(whole.values()) == {1} and len(whole) == 19
    assert drawn(dataset, 5) != drawn(dataset, 1)


def test_an_epoch_depends_on_its_number_and_seed_only():
    fresh, used = (MixtureDataset([bitext(30, 10)], [1.5], slices=3, seed=4) for _ in range(2))
    for epoch in (1, 2, 6):
        used.set_epoch(epoch)
    assert drawn(fresh, 5) == drawn(used, 5)
    other_seed = MixtureDataset([bitext(30, 10)], [1.5], slices=3, seed=5)
    assert drawn(other_seed, 5) != drawn(fresh, 5)


def test_sizes_belong_to_the_pairs_that_were_drawn():
    dataset = MixtureDataset([bitext(11, 10), bitext(6, 40)], [0.5, 2], slices=2)
    dataset.set_epoch(3)
    for index in range(len(dataset)):
        assert dataset.size(index) == (len(dataset[index]["source"]),) * 2
        assert dataset.num_tokens(index) == len(dataset[index]["source"])


def test_batches_hold_every_pair_of_the_epoch_sorted_by_length():
    dataset = MixtureDataset([bitext(23, 10)], [2])
    order = dataset.ordered_indices()
    lengths = [dataset.num_tokens(i) for i in order]
    assert lengths == sorted(lengths)
    batches = dataset.batch_by_size(order, max_tokens=8)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(46))


def test_an_empty_slice_is_refused():
    with pytest.raises(ValueError, match="raise --epoch-fraction"):
        MixtureDataset([bitext(2, 10)], [1], slices=5).set_epoch(4)


def test_mixtures_are_parsed():
    assert parse_mixture("a=2,b/c=0.5") == [("a", 2.0), ("b/c", 0.5)]
    assert parse_mixture("alone") == [("alone", 1.0)]
    assert parse_mixture("odd=name=1") == [("odd=name", 1.0)]


@pytest.mark.parametrize("text", ["a=0", "a=-1", "a=x", "=1", "a=1,,b=1", "a=nan", "a=inf", ""])
def test_a_bad_mixture_is_refused(text):
    with pytest.raises(ValueError, match="--mixture takes FOLDER=WEIGHT"):
        parse_mixture(text)


@pytest.mark.parametrize("fraction, slices", [(1, 1), (0.5, 2), (0.25, 4), (0.33, 3), (0.1, 10)])
def test_fractions_of_a_pass(fraction, slices):
    assert slices_per_pass(fraction) == slices


@pytest.mark.parametrize("fraction", [0, -0.5, 0.4, 1.5, 2])
def test_a_fraction_that_does_not_divide_a_pass_is_refused(fraction):
    with pytest.raises(ValueError, match="--epoch-fraction"):
        slices_per_pass(fraction)
