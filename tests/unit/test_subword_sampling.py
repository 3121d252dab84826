"""Sources cut at random: deterministic, the same text, tags and odd lines untouched."""

import io
import math
import random
import subprocess
import sys
from collections import Counter
from random import Random

import numpy as np
import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset
from subword_nmt.apply_bpe import BPE

from data_prep.learn_subwords import learn_codes
from data_prep.subwords import PairCodes, SentencePieces
from fairseq_plugins.data.mixture import MixtureDataset
from fairseq_plugins.data.subword_sampling import PieceSampler, SampledSources, piece_sampler
from fairseq_plugins.data.tags import check_tag, put_before_sources
from tests.fixtures.models import toy_lines

# characters without a piece of their own are spelt in bytes
LINES = [*toy_lines(60, seed=5), "ba 漢字 bu", "ba\u3000be  bi", "", "🙂 kakaku <s> </s>"]


@pytest.fixture(scope="module", params=["unigram", "bpe", "subword-nmt"])
def subwords(request):
    return learnt(request.param)


def learnt(kind, before="", **settings):
    if kind == "subword-nmt":
        lines = toy_lines(300)
        codes, (known, _) = learn_codes([lines, lines], 340, set().union(*LINES), 50)
        return PairCodes.of_lines(codes, "codes", known)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(before + line for line in toy_lines(300)), model_writer=model,
        vocab_size=340, model_type=kind, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        **{"byte_fallback": True, "normalization_rule_name": "identity", **settings},
    )  # fmt: skip
    return SentencePieces(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))


def dictionary_of(subwords):
    dictionary = Dictionary()
    for piece in subwords._bpe.vocab if subwords.kind == "subword-nmt" else subwords.pieces:
        dictionary.add_symbol(piece)
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
    sampler = piece_sampler(subwords, alpha, dictionary)
    return SampledSources(mixture, sampler, dictionary, seed, longest, [len(tag)])


def sources(dataset, epoch=1, order=None):
    dataset.set_epoch(epoch)
    found = {i: dataset[i]["source"].tolist() for i in order or range(len(dataset))}
    return [found[i] for i in range(len(dataset))]


def draw(subwords, line, alpha, seed=1):
    sampler = piece_sampler(subwords, alpha, dictionary_of(subwords))
    return sampler.sample(subwords.encode(line), Random(seed))


def test_sampled_pieces_spell_the_same_text_with_pieces_of_the_model(subwords):
    known = set(dictionary_of(subwords).symbols)
    for alpha in (0.01, 0.5, 1.0):
        for number, line in enumerate(LINES):
            pieces = draw(subwords, line, alpha, number)
            assert subwords.decode(pieces) == subwords.decode(subwords.encode(line))
            assert set(pieces) <= known


def test_a_full_memory_of_words_changes_nothing(monkeypatch):
    subwords = learnt("unigram")
    dataset = sampled(subwords)
    expected = sources(dataset)
    monkeypatch.setattr("fairseq_plugins.data.subword_sampling.CACHED_WORDS", 3)
    small = sampled(subwords)
    assert sources(small) == expected and len(small._sampler._ways) <= 3


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_bytes_and_unknown_pieces_stay(kind):
    subwords = learnt(kind)
    sampler = piece_sampler(subwords, 0.5, dictionary_of(subwords))
    odd = ["<0xE6>", "<0xBC>", "<unk>", "\u2581", "<0x41>"]
    assert sampler.sample(odd, Random(1)) == odd


@pytest.mark.parametrize("kind", ["bpe", "subword-nmt"])
def test_bpe_that_leaves_nothing_out_is_the_models_own(kind):
    subwords = learnt(kind)
    # repeated syllables: the same merge twice, overlapping
    for line in [*LINES, "bababababa kakakak aaaa", "dudududa bibibi"]:
        assert draw(subwords, line, alpha=0) == subwords.encode(line)


def test_bpe_that_leaves_everything_out_is_characters():
    subwords = learnt("bpe")
    assert draw(subwords, "babu ki", alpha=1) == list("\u2581babu\u2581ki")


def test_dropout_of_subword_nmt_that_leaves_everything_out_is_characters():
    assert draw(learnt("subword-nmt"), "babu k", alpha=1) == ["b@@", "a@@", "b@@", "u", "k"]


def test_dropout_leaves_out_as_many_merges_as_that_of_subword_nmt():
    lines, draws = ["#version: 0.2", "b a", "ba ba"], 5000
    known = {"ba@@", "b@@", "a@@", "baba@@", "c"}
    sampler, chance = piece_sampler(PairCodes.of_lines(lines, "codes"), 0.3, known), Random(1)
    ours = Counter(tuple(sampler.sample(["baba@@", "c"], chance)) for _ in range(draws))
    theirs, state = BPE(io.StringIO("\n".join(lines))), random.getstate()
    random.seed(1)
    expected = Counter(
        tuple(theirs.segment_tokens(["babac"], dropout=0.3)) for _ in range(draws)
    )
    random.setstate(state)
    assert ours.keys() == expected.keys() and len(ours) == 5
    for cut, count in expected.items():
        assert ours[cut] / draws == pytest.approx(count / draws, abs=0.03)


@pytest.mark.parametrize(
    "pieces",
    [["ba@@", "<unk>"], ["<unk>", "b@@"], ["ba@@", "ba@@"], [], ["q@@", "u"]],
    ids=["unknown in a word", "cut off", "cut off inside a word", "none", "unknown letter"],
)  # fmt: skip
def test_words_that_subword_nmt_did_not_end_or_know_stay(pieces):
    codes = PairCodes.of_lines(["#version: 0.2", "b a", "ba b", "q u</w>"], "codes")
    known = {"<unk>", "ba@@", "b@@", "a@@", "b", "a", "qu", "u", ">"}
    known.update(f"{letter}@@" for letter in "<unk")
    assert piece_sampler(codes, 1, known).sample(pieces, Random(1)) == pieces


def test_what_the_filter_of_subword_nmt_forbids_is_split_again():
    lines, known = ["#version: 0.2", "b a", "ba d</w>"], {"b@@", "a@@", "ba@@", "d"}
    sampler = piece_sampler(PairCodes.of_lines(lines, "codes", known), 0, known)
    assert sampler.sample(["b@@", "a@@", "d"], Random(1)) == ["ba@@", "d"]


@pytest.mark.parametrize("kind", ["unigram", "bpe", "subword-nmt"])
def test_pieces_that_the_dictionary_lacks_do_not_come(kind):
    subwords = learnt(kind)
    line = "babu kiku lo kakaku didada"
    pieces = subwords.encode(line)
    known = set(pieces)
    drawn = {
        piece
        for seed in range(20)
        for piece in piece_sampler(subwords, 0.5, known).sample(pieces, Random(seed))
    }
    assert drawn == known
    assert drawn < {p for seed in range(20) for p in draw(subwords, line, 0.5, seed)}


def test_a_character_without_a_piece_keeps_its_word_whole():
    scores = {"a": -2.0, "ab": -1.0, "c": -3.0}
    assert PieceSampler(scores, 1).sample(["ab", "c", "<unk>", "a"], Random(1)) == [
        "ab", "c", "<unk>", "a",
    ]  # fmt: skip


def test_a_unigram_model_raised_to_a_high_power_is_its_best_way():
    subwords = learnt("unigram")
    best, drawn = (
        [sum(map(subwords.scores().get, pieces)) for pieces in ways]
        for ways in zip(*((subwords.encode(line), draw(subwords, line, 1e4))
                          for line in LINES[:60]), strict=True)
    )  # fmt: skip
    assert drawn == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_ways_to_cut_a_word_come_as_often_as_their_probability_says(alpha):
    scores = {"a": -1.5, "b": -2.0, "ab": -2.5, "ba": -1.25, "aba": -4.0}
    weights = {}
    for way in (("a", "b", "a"), ("ab", "a"), ("a", "ba"), ("aba",)):
        weights[way] = math.exp(alpha * sum(map(scores.get, way)))
    sampler, chance = PieceSampler(scores, alpha), Random(1)
    draws = 20_000
    seen = Counter(tuple(sampler.sample(["aba"], chance)) for _ in range(draws))
    for way, weight in weights.items():
        assert seen[way] / draws == pytest.approx(weight / sum(weights.values()), abs=0.015)
    assert sum(seen.values()) == sum(seen[way] for way in weights)


def test_a_process_of_its_own_draws_the_same():
    """SentencePiece 0.2.3, given a seed, does not."""
    subwords = learnt("unigram")
    scores, pieces = subwords.scores(), subwords.encode("babu kiku lo kakaku didada")
    code = (
        "import random; from fairseq_plugins.data.subword_sampling import PieceSampler as P; "
        f"print(P({scores!r}, 0.3).sample({pieces!r}, random.Random('1 2 3')))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    here = PieceSampler(scores, 0.3).sample(pieces, Random("1 2 3"))
    assert there.stdout.endswith(f"{here}\n"), there.stderr


def test_pieces_depend_on_seed_epoch_and_place_only(subwords):
    dataset = sampled(subwords)
    first = sources(dataset, epoch=2)
    backwards = list(reversed(range(len(dataset))))
    assert sources(sampled(subwords), epoch=2, order=backwards) == first
    assert sources(dataset, epoch=3) != first
    assert sources(sampled(subwords, seed=2), epoch=2) != first


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
    texts = [
        subwords.decode([dictionary[i] for i in source[:-1]])
        for source in sources(sampled(subwords, tag=tag))
        if source[: len(tag)] == tag
    ]
    assert texts == [subwords.decode(subwords.encode(f"<medical> {line}")) for line in LINES]


def test_a_source_that_would_be_too_long_stays_as_it_was(subwords):
    dataset = sampled(subwords, longest=1)
    assert sources(dataset) == [dataset.dataset[i]["source"].tolist() for i in range(len(dataset))]
    limit = max(map(len, sources(sampled(subwords)))) - 1
    lengths = [len(s) for s in sources(sampled(subwords, longest=limit))]
    prepared = dataset.sizes[:, 0]
    assert all(n <= limit or n == p for n, p in zip(lengths, prepared, strict=True))


def test_a_word_before_the_text_changes_none_of_its_pieces(subwords):
    check_tag("<medical>", subwords, LINES)


def test_a_tag_that_melts_into_the_text_is_refused():
    crossing = learnt("bpe", before="bu ", split_by_whitespace=False)
    with pytest.raises(ValueError, match="pieces cross spaces"):
        check_tag("bu", crossing, toy_lines(200))


class Tied:
    """Cuts the first ``ties`` of the lines 0, 1, 2 ... otherwise behind a tag."""

    def __init__(self, ties):
        self._ties = ties

    def encode(self, line):
        *tag, number = line.split()
        return [*tag, f"{number}!" if tag and int(number) < self._ties else number]


def test_a_tie_in_a_hundred_lines_is_tolerated():
    lines = list(map(str, range(200)))
    check_tag("7", Tied(2), lines)
    with pytest.raises(ValueError, match="like 3 of 200 lines"):
        check_tag("7", Tied(3), lines)
