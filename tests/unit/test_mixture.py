import math
from collections import Counter

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset

from fairseq_plugins.data.mixture import (
    MixtureDataset,
    pairs_in_pass,
    parse_domains,
    parse_mixture,
    parse_replay,
    replay_weights,
    slices_per_pass,
    tempered,
)
from fairseq_plugins.data.tags import parse_tags, put_before_sources


def bitext(size, first):
    """``size`` pairs whose source is one number, from ``first`` on."""
    dictionary = Dictionary()
    for number in range(100):
        dictionary.add_symbol(str(number))
    lengths = np.array([1 + i % 5 for i in range(size)], dtype=np.int32)
    sources = [torch.full((lengths[i],), first + i) for i in range(size)]
    sides = [ListDataset(sources, lengths) for _ in range(2)]
    return LanguagePairDataset(
        sides[0], lengths, dictionary, sides[1], lengths, dictionary, shuffle=True
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


def test_temperature_1_is_as_the_weights_say():
    assert tempered([1, 0.5], [10, 1000], 1) == [1, 0.5]


def test_a_high_temperature_shows_all_bitexts_equally_often():
    lengths = [10, 70, 1000]
    weights = tempered([1, 1, 1], lengths, math.inf)
    assert pairs_in_pass(weights, lengths) == [1000, 1000, 1000]
    assert tempered([1, 2, 1], lengths, math.inf)[1] == 2 * weights[1]


def test_temperature_gives_the_shares_of_the_paper():
    """p_i is proportional to n_i^(1/T), Arivazhagan et al. 2019."""
    lengths = [16, 81, 256]
    shown = pairs_in_pass(tempered([1, 1, 1], lengths, 4), lengths)
    assert shown == [round(256 * (n / 256) ** 0.25) for n in lengths] == [128, 192, 256]


@pytest.mark.parametrize("temperature", [1, 1.5, 5, math.inf])
def test_no_temperature_takes_pairs_away(temperature):
    weights = tempered([1, 1, 1], [3, 7, 1000], temperature)
    assert all(weight >= 1 for weight in weights) and weights[2] == 1


@pytest.mark.parametrize("temperature", [0.99, 0, -1, math.nan])
def test_a_temperature_below_1_is_refused(temperature):
    with pytest.raises(ValueError, match="--mixture-temperature is 1"):
        tempered([1], [5], temperature)


def test_pairs_in_a_pass_are_those_that_are_drawn():
    lengths, weights = [30, 7], [1.3, 2.5]
    dataset = MixtureDataset([bitext(30, 10), bitext(7, 60)], weights)
    seen = drawn(dataset, 1)
    shown = [sum(n for pair, n in seen.items() if (pair < 60) == first) for first in (True, False)]
    assert shown == pairs_in_pass(weights, lengths)


@pytest.mark.parametrize("shares", [[0.25], [0.9], [0.2, 0.5]])
def test_replay_has_its_share_of_a_pass_and_takes_none_from_the_domain(shares):
    lengths = [40, 1000][: len(shares)]
    weights = replay_weights(300, lengths, shares)
    shown = pairs_in_pass(weights, lengths)
    everything = 300 + sum(shown)
    for pairs, share in zip(shown, shares, strict=True):
        assert pairs / everything == pytest.approx(share, abs=0.003)


def test_replay_of_less_than_a_pair_is_refused():
    with pytest.raises(ValueError, match="less than one pair; raise it"):
        replay_weights(10, [1000], [0.001])


def test_replay_is_parsed():
    assert parse_replay("a=0.25, b/c=0.5") == [("a", 0.25), ("b/c", 0.5)]


@pytest.mark.parametrize("text", ["a", "a=0", "a=1", "a=-0.1", "a=x", "=0.5", "a=0.5,", "a=nan"])
def test_a_bad_replay_is_refused(text):
    with pytest.raises(ValueError, match="--replay takes FOLDER=SHARE"):
        parse_replay(text)


def test_replay_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="leave nothing for the domain"):
        parse_replay("a=0.5,b=0.5")


def test_the_bitext_of_a_pair_is_known():
    dataset = MixtureDataset([bitext(8, 10), bitext(5, 40)], [2, 1], slices=2)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        for index in range(len(dataset)):
            assert dataset.bitext_of(index) == (int(dataset[index]["source"][0]) >= 40)


def test_domains_are_parsed():
    assert parse_domains("medical=a/b, talks_2=c=d") == {"medical": "a/b", "talks_2": "c=d"}


@pytest.mark.parametrize("text", ["medical", "=a", "medical=", "two words=a", "a-b=c", "a=b,"])
def test_bad_domains_are_refused(text):
    with pytest.raises(ValueError, match="--valid-domains takes NAME=FOLDER"):
        parse_domains(text)


def test_a_domain_named_twice_is_refused():
    with pytest.raises(ValueError, match="names a twice"):
        parse_domains("a=b,a=c")


def test_tags_are_parsed():
    assert parse_tags("corpora/medical=<medical>, b=[b]") == {
        "corpora/medical": "<medical>", "b": "[b]",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a", "a=", "=<a>", "a=two words", "a=<a>,"])
def test_bad_tags_are_refused(text):
    with pytest.raises(ValueError, match="--domain-tags takes FOLDER=TAG"):
        parse_tags(text)


def test_a_folder_with_two_tags_is_refused():
    with pytest.raises(ValueError, match="names a twice"):
        parse_tags("a=<a>,a=<b>")


def test_a_tag_is_counted_in_every_size():
    pairs = bitext(12, 10)
    before = pairs.sizes.copy()
    put_before_sources(pairs, [7, 8])
    assert pairs.sizes.tolist() == [[src + 2, tgt] for src, tgt in before]
    for index in range(12):
        source = pairs[index]["source"].tolist()
        assert source[:2] == [7, 8] and len(source) == pairs.size(index)[0]
        assert pairs.num_tokens(index) == len(source) == pairs.src.size(index)
        assert pairs.src.num_tokens(index) == len(source)
    kept, dropped = pairs.filter_indices_by_size(np.arange(12), (4, 9))
    assert all(len(pairs[i]["source"]) <= 4 for i in kept) and len(dropped) > 0
    batch = pairs.collater([pairs[i] for i in range(4)])
    assert batch["net_input"]["src_lengths"].tolist() == sorted(
        (len(pairs[i]["source"]) for i in range(4)), reverse=True
    )
