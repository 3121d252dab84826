"""Sources cut at random: deterministic, the same text, tags and odd lines untouched."""

import io
import threading

import numpy as np
import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset

from data_prep.subwords import Subwords
from fairseq_plugins.data.mixture import MixtureDataset
from fairseq_plugins.data.subword_sampling import SampledSources, with_sampling
from fairseq_plugins.data.tags import check_tag, put_before_sources
from tests.fixtures.models import toy_lines

# characters without a piece of their own are spelt in bytes
LINES = [*toy_lines(60, seed=5), "ba 漢字 bu", "ba\u3000be  bi", "", "🙂 kakaku <s> </s>"]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def subwords(request):
    return learnt(request.param)


def learnt(kind, before="", **settings):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(before + line for line in toy_lines(300)), model_writer=model, vocab_size=340,
        model_type=kind, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        **{"byte_fallback": True, "normalization_rule_name": "identity", **settings},
    )  # fmt: skip
    return Subwords(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))


def dictionary_of(subwords):
    dictionary = Dictionary()
    processor = subwords._processor
    for number in range(processor.get_piece_size()):
        if not processor.is_control(number) and not processor.is_unknown(number):
            dictionary.add_symbol(processor.id_to_piece(number))
    return dictionary


def ids(dictionary, pieces):
    return [dictionary.index(piece) for piece in pieces]


def pairs_of(dictionary, sentences):
    """``LanguagePairDataset`` of lists of pieces, the source as its own target."""
    tokens = [torch.tensor([*ids(dictionary, s), dictionary.eos()]) for s in sentences]
    sizes = np.array([len(t) for t in tokens])
    sides = [ListDataset(tokens, sizes) for _ in range(2)]
    return LanguagePairDataset(sides[0], sizes, dictionary, sides[1], sizes, dictionary)


def sampled(subwords, seed=1, tag=(), longest=1000, weight=1, sentences=None, alpha=0.3):
    dictionary = dictionary_of(subwords)
    pairs = pairs_of(dictionary, sentences or [subwords.encode(line) for line in LINES])
    if tag:
        put_before_sources(pairs, tag)
    mixture = MixtureDataset([pairs], [weight], seed=7)
    return SampledSources(mixture, subwords, dictionary, alpha, seed, longest, [len(tag)])


def sources(dataset, epoch=1, order=None):
    dataset.set_epoch(epoch)
    found = {i: dataset[i]["source"].tolist() for i in order or range(len(dataset))}
    return [found[i] for i in range(len(dataset))]


def test_sampled_pieces_spell_the_same_text(subwords):
    for alpha in (0.05, 0.5, 1.0):
        for number, line in enumerate(LINES):
            pieces = subwords.sample(line, alpha, seed=number)
            assert subwords.decode(pieces) == subwords.decode(subwords.encode(line))


def test_joining_and_cutting_again_gives_the_pieces_that_were_prepared(subwords):
    dataset = sampled(subwords)
    assert dataset.restorable() == (len(LINES), len(LINES))


def test_pieces_depend_on_seed_epoch_and_place_only(subwords):
    dataset = sampled(subwords)
    first = sources(dataset, epoch=2)
    backwards = list(reversed(range(len(dataset))))
    assert sources(sampled(subwords), epoch=2, order=backwards) == first
    assert sources(dataset, epoch=3) != first
    assert sources(sampled(subwords, seed=2), epoch=2) != first


def test_another_thread_draws_the_same(subwords):
    dataset, found = sampled(subwords), []
    expected = sources(dataset)
    thread = threading.Thread(target=lambda: found.append(sources(dataset)))
    thread.start()
    thread.join()
    assert found == [expected]


def test_sampling_cuts_sentences_otherwise_and_keeps_the_target(subwords):
    dataset = sampled(subwords)
    changed = 0
    for index in range(len(dataset)):
        before, now = dataset.dataset[index], dataset[index]
        changed += now["source"].tolist() != before["source"].tolist()
        assert torch.equal(now["target"], before["target"]) and now["id"] == before["id"]
        assert now["source"][-1] == before["source"][-1] and now["source"].dtype == torch.int64
    assert changed > len(LINES) / 5
    assert dataset.sizes.tolist() == dataset.dataset.sizes.tolist()


def test_a_smaller_alpha_of_a_unigram_model_is_wilder():
    subwords = learnt("unigram")
    few, many = (
        sum(map(len, sources(sampled(subwords, alpha=alpha)))) for alpha in (1.0, 0.05)
    )  # fmt: skip
    assert many > few * 1.1


def test_two_copies_of_a_pair_are_cut_differently():
    dataset = sampled(learnt("unigram"), weight=2)
    drawn = sources(dataset)
    half = len(drawn) // 2
    assert drawn[:half] != drawn[half:]


def test_a_tag_stays_whole(subwords):
    dictionary = dictionary_of(subwords)
    tag = ids(dictionary, subwords.encode("<medical>"))
    assert len(tag) > 1  # several pieces, which sampling could cut
    for source in sources(sampled(subwords, tag=tag)):
        assert source[: len(tag)] == tag
        text = subwords.decode([dictionary[i] for i in source[:-1]])
        assert text.split(" ")[0] == "<medical>"


def test_a_source_that_would_be_too_long_stays_as_it_was(subwords):
    dataset = sampled(subwords, longest=1)
    assert sources(dataset) == [dataset.dataset[i]["source"].tolist() for i in range(len(dataset))]
    limit = max(map(len, sources(sampled(subwords)))) - 1
    lengths = [len(s) for s in sources(sampled(subwords, longest=limit))]
    prepared = dataset.sizes[:, 0]
    assert all(n <= limit or n == p for n, p in zip(lengths, prepared, strict=True))


def test_pieces_that_do_not_come_back_stay_as_they_were(subwords, caplog):
    odd = [["\u2581", "b", "a"]] * 2  # not how the model cuts it
    usual = [subwords.encode(line) for line in LINES]
    dataset = sampled(subwords, sentences=[*usual, *odd])
    assert dataset.restorable() == (len(LINES) + 2, len(LINES))
    for epoch in (1, 2, 3):
        assert sources(dataset, epoch)[-2:] == [
            dataset.dataset[i]["source"].tolist() for i in (-2, -1)
        ]
    with caplog.at_level("INFO"):
        with_sampling(dataset.dataset, subwords, dictionary_of(subwords), 0.1, 1, 99, [0])
    assert f"of {len(LINES) + 2} training sources looked at, 2 cannot be joined" in caplog.text


def test_data_that_the_model_did_not_make_is_refused():
    subwords = learnt("unigram")
    mixture = sampled(subwords, sentences=[["\u2581", "b", "a"]] * 3).dataset
    with pytest.raises(ValueError, match="3 of 3 training sources are not what"):
        with_sampling(mixture, subwords, dictionary_of(subwords), 0.1, 1, 99, [0])


def test_a_word_before_the_text_changes_none_of_its_pieces(subwords):
    check_tag("<medical>", subwords, LINES)


def test_a_tag_that_melts_into_the_text_is_refused():
    crossing = learnt("bpe", before="bu ", split_by_whitespace=False)
    with pytest.raises(ValueError, match="pieces cross spaces"):
        check_tag("bu", crossing, toy_lines(200))
