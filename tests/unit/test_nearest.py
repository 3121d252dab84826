"""Choosing general pairs near to a domain: laws of the measures, and what is written."""

import importlib.util
import math
import os
import random

import numpy as np
import pytest

from data_prep import nearest as nearest_module
from data_prep import nearness
from data_prep.manifest import read_json, read_manifest
from data_prep.nearest import _draw, _main, choose, find_domain, make_method, select_nearest
from data_prep.nearness import CrossEntropyDifference, Samples, Tfidf
from tests.fixtures.bitext import DEV, TEST, read_side, write_folder, write_side

pytest.importorskip("varikn", reason="it has no wheel for this Python; see requirements.txt")

LANGS = ("de", "en")
METHODS = [
    CrossEntropyDifference(), CrossEntropyDifference("words", 3),
    CrossEntropyDifference("characters", 4), Tfidf(),
]  # fmt: skip


def made_up(words, lines, seed):
    """Pairs of made-up sentences of two languages."""
    chance = random.Random(seed)
    texts = [chance.choices(words, k=chance.randint(4, 9)) for _ in range(lines)]
    return [(" ".join(text), " ".join(word[::-1] for word in text)) for text in texts]


MEDICAL = "der Patient hat hohes Fieber und nimmt Tabletten gegen Husten Blut Herz Lunge".split()
EVERYDAY = "das Haus ist alt und wir gehen morgen in den Park Auto Tom Hund Garten".split()
PLANTED = 20
DOMAIN = made_up(MEDICAL, 60, seed=1)
POOL = made_up(EVERYDAY, 100, seed=2) + made_up(MEDICAL, PLANTED, seed=3)
random.Random(4).shuffle(POOL)
OF_DOMAIN = {number for number, (src, _) in enumerate(POOL, start=1)
             if set(src.split()) <= {*MEDICAL}}  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    general = write_folder(tmp_path / "general", POOL, None, None)
    return general, write_folder(tmp_path / "domain", DOMAIN)


def nearest(folders, out, method=METHODS[1], **options):
    """[(number, score)] of the chosen pairs, in the order in which they are written."""
    if not {"share", "lines", "threshold"} & options.keys():
        options["lines"] = PLANTED
    select_nearest(*folders, out, LANGS, method=method, **options)
    origins = [line.split("\t") for line in read_side(out / "train.origin")]
    return [(int(number), float(*score)) for origin, number, *score in origins
            if origin == "general"]  # fmt: skip


def scores_of(folders, out, **options):
    """{pair: score} of all general pairs."""
    found = nearest(folders, out, share=1, **options)
    pairs = zip(read_side(out / "train.de"), read_side(out / "train.en"), strict=True)
    return {pair: score for pair, (_, score) in zip(pairs, found, strict=True)}


# -- the measures --------------------------------------------------------------------------


@pytest.mark.parametrize("sides", ["source", "target", "both"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_lines_of_the_domain_are_nearer_than_others(folders, tmp_path, method, sides):
    assert len(OF_DOMAIN) == PLANTED
    found = nearest(folders, tmp_path / "out", method, sides=sides)
    assert {number for number, _ in found} == OF_DOMAIN


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_order_of_the_lines_changes_no_score(folders, tmp_path, method):
    ours = scores_of(folders, tmp_path / "ours", method=method)
    write_folder(folders[0], POOL[::-1], None, None)
    write_folder(folders[1], DOMAIN[::-1])
    assert scores_of(folders, tmp_path / "theirs", method=method) == ours


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_score_does_not_depend_on_the_neighbours(tmp_path, method):
    method.fit(tmp_path, Samples(DOMAIN[:20], POOL[:20], POOL[20:40]))
    together = method.score(tmp_path, POOL)
    alone = [method.score(tmp_path, [pair])[0] for pair in POOL]
    assert alone == pytest.approx(together, abs=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_both_sides_are_the_sum_of_the_sides(tmp_path, method):
    found = []
    for sides in ((0,), (1,), (0, 1)):
        folder = tmp_path / str(sides)
        folder.mkdir()
        samples, lines = (
            [[tuple(pair[side] for side in sides) for pair in pairs] for pairs in group]
            for group in ((DOMAIN[:30], POOL[:30], POOL[30:60]), (POOL,))
        )
        method.fit(folder, Samples(*samples))
        found.append(np.array(method.score(folder, *lines)))
    np.testing.assert_allclose(found[0] + found[1], found[2], atol=1e-9)


def difference(folder, *samples, lines):
    """Cross-entropy differences of lines that are in no sample."""
    folder.mkdir()
    method = CrossEntropyDifference("words", 3)
    method.fit(folder, Samples(*samples))
    return np.array(method.score(folder, lines))


def test_domain_and_general_text_exchanged_turn_the_sign(tmp_path):
    one, other = DOMAIN[:30], POOL[:30]
    lines = [pair for pair in POOL[30:] if pair not in one]
    # with equal samples of general text there is one general model
    ours = difference(tmp_path / "ours", one, other, other, lines=lines)
    theirs = difference(tmp_path / "theirs", other, one, one, lines=lines)
    # the units that both know are those of all three samples
    known = nearness.name_units(nearness.words_of, [src for src, _ in one + other])
    assert {word for src, _ in lines for word in src.casefold().split()} <= set(
        word.casefold() for word in known
    )
    np.testing.assert_allclose(ours, -theirs, atol=1e-5)
    assert np.abs(ours).max() > 1


def test_text_that_is_like_both_is_near_to_neither(tmp_path):
    same = DOMAIN[:30]
    found = difference(tmp_path / "models", same, same, same, lines=POOL)
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_a_line_is_scored_by_the_general_model_that_has_not_learnt_it(tmp_path):
    general, other = POOL[:30], POOL[30:60]
    ours = difference(tmp_path / "ours", DOMAIN, general, other, lines=general)
    theirs = difference(tmp_path / "theirs", DOMAIN, other, general, lines=other)
    by_itself = difference(tmp_path / "itself", DOMAIN, general, general, lines=general)
    assert by_itself.mean() < ours.mean() - 0.5
    # whichever is the first: a line of one is scored by the other
    np.testing.assert_allclose(
        difference(tmp_path / "again", DOMAIN, other, general, lines=general), ours, atol=1e-6
    )
    assert theirs.shape == ours.shape


def trained(folder, texts, order):
    """Function that gives the bits per word of a text under a model of ``texts``."""
    names = nearness.name_units(str.split, texts)
    nearness.write_json(folder / "names.json", names)

    def line(text):
        return [names.get(word, nearness.UNKNOWN) for word in text.split()]

    nearness.train_model(folder / "model", line, texts, order)
    model = nearness.load_model(folder / "model")
    return lambda text: nearness.cross_entropy(model, line(text))


def test_probabilities_of_all_words_add_up_to_one(tmp_path):
    bits = trained(tmp_path, ["a b c", "a b", "b c a", "c a d d"] * 50, order=1)
    # of order 1, what a line costs is the sum of what its words and its end cost
    end = bits("")
    costs = [end, *(2 * bits(word) - end for word in ("a", "b", "c", "d", "never-seen"))]
    # the library keeps a little for its own unknown word and for the begin of a line
    assert sum(2**-cost for cost in costs) == pytest.approx(1, abs=0.005)


def test_cross_entropies_are_those_of_counts_by_hand(tmp_path):
    bits = trained(tmp_path, ["a b", "a b", "a a", "b a"] * 50, order=1)
    # of 12 words and ends, 5 are a, 3 are b, 4 are ends; so much text hardly needs smoothing
    costs = [-math.log2(share / 12) for share in (5, 3, 5, 4)]
    assert bits("a b a") == pytest.approx(sum(costs) / 4, abs=0.005)


def test_longer_ngrams_know_more(tmp_path):
    texts = [f"{word} {word} {word}" for word in "abcdefgh"] * 5
    costs = []
    for order in (1, 2):
        (tmp_path / str(order)).mkdir()
        costs.append(trained(tmp_path / str(order), texts, order)("c c c"))
    assert costs[1] < costs[0] - 0.5


def test_a_rare_word_costs_as_much_as_an_unknown_one(tmp_path):
    bits = trained(tmp_path, ["a b c a b c a b rare"], order=2)
    assert bits("a rare") == bits("a unheard-of") > bits("a b")


@pytest.mark.parametrize("text", ["<s> </s> <UNK>", "</s>", "x" * 5000, "a\x00b", "<s>", "_ __"])
def test_no_text_is_a_mark_of_the_library(tmp_path, text):
    method = CrossEntropyDifference("words", 3)
    domain = [*DOMAIN[:10], (text, text)] * 2
    method.fit(tmp_path, Samples(domain, POOL[:20], POOL[20:40]))
    odd, plain = method.score(tmp_path, [(text, text), POOL[50]])
    assert math.isfinite(odd) and odd > plain


def test_case_is_ignored(tmp_path):
    for method in METHODS:
        folder = tmp_path / str(METHODS.index(method))
        folder.mkdir()
        method.fit(folder, Samples(DOMAIN[:30], POOL[:30], POOL[30:60]))
        lines = [(src.lower(), tgt.upper()) for src, tgt in POOL[60:70]]
        assert method.score(folder, lines) == pytest.approx(method.score(folder, POOL[60:70]))


def test_the_library_is_quiet(tmp_path, capfd):
    difference(tmp_path / "models", DOMAIN[:9], POOL[:9], POOL[9:18], lines=POOL)
    os.write(2, b"and others are heard again")
    assert capfd.readouterr().err == "and others are heard again"


def test_tfidf_is_the_cosine_with_the_nearest_line(tmp_path):
    Tfidf().fit(tmp_path, Samples(DOMAIN, POOL[:60], POOL[60:]))
    same, empty, other = Tfidf().score(tmp_path, [DOMAIN[7], ("", ""), POOL[0]])
    assert same == pytest.approx(2) and empty == 0 < other < same


def test_tfidf_makes_little_of_what_general_text_has_too(tmp_path):
    domain = [("rare words",), ("usual words",)]
    Tfidf().fit(tmp_path, Samples(domain, [("usual",)] * 20, [("usual",)] * 20))
    rare, usual = Tfidf().score(tmp_path, [("rare songs",), ("usual songs",)])
    assert rare > usual


# -- samples -------------------------------------------------------------------------------


def test_a_sample_is_of_the_wanted_size_without_repeats_and_in_any_order_the_same():
    lines = [(f"line {number}",) for number in range(50)]
    drawn = _draw(lines * 3, 20, seed=1)
    assert len(drawn) == len(set(drawn)) == 20
    assert _draw(lines[::-1], 20, seed=1) == drawn != _draw(lines, 20, seed=2)
    assert sorted(_draw(lines * 2, 80, seed=1)) == sorted(lines)
    # the first of a longer sample are the shorter one
    assert _draw(lines, 30, seed=1)[:20] == drawn


def test_samples_are_even():
    lines = [(str(number),) for number in range(40)]
    counts = dict.fromkeys(lines, 0)
    for seed in range(200):
        for line in _draw(lines, 10, seed):
            counts[line] += 1
    assert sum(counts.values()) == 2000 and 25 < min(counts.values()) < max(counts.values()) < 80


@pytest.mark.parametrize(
    "files, sides, expected",
    [
        (["train.de", "train.en"], None, ("both", ["train.de", "train.en"])),
        (["train.de"], None, ("source", ["train.de"])),
        (["monolingual.de"], None, ("source", ["monolingual.de"])),
        (["train.de.gz", "monolingual.de"], None, ("source", ["train.de.gz", "monolingual.de"])),
        (["train.de", "train.en", "monolingual.de"], None, ("both", ["train.de", "train.en"])),
        (["train.de", "train.en", "monolingual.de"], "source",
         ("source", ["train.de", "monolingual.de"])),
        (["train.de", "train.en"], "target", ("target", ["train.en"])),
        (["train.de"], "target", "no train.en"),
        (["train.de"], "both", "no train.de and train.en"),
        ([], None, "no train.de"),
    ],
)  # fmt: skip
def test_what_the_domain_has_decides_what_is_compared(tmp_path, files, sides, expected):
    for name in files:
        write_side(tmp_path / name, ["text"])
    if isinstance(expected, str):
        with pytest.raises(FileNotFoundError, match=expected):
            find_domain(tmp_path, LANGS, sides)
    else:
        found, paths = find_domain(tmp_path, LANGS, sides)
        assert (found, [path.name for group in paths for path in group]) == expected


def test_a_domain_without_targets_is_compared_by_its_sources(folders, tmp_path):
    (folders[1] / "train.en").unlink()
    for split in ("dev", "test"):
        (folders[1] / f"{split}.en").unlink()
        (folders[1] / f"{split}.de").unlink()
    ours = nearest(folders, tmp_path / "ours")
    assert read_manifest(tmp_path / "ours")["settings"]["sides"] == "source"
    assert {number for number, _ in ours} == OF_DOMAIN
    assert not (tmp_path / "ours" / "dev.de").exists()
    (folders[1] / "train.de").rename(folders[1] / "monolingual.de")
    assert nearest(folders, tmp_path / "theirs") == ours


# -- what is chosen ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scores, wanted, expected",
    [
        ([1, 3, 2], {"lines": 1}, [1]),
        ([1, 3, 2], {"lines": 2}, [1, 2]),
        ([1, 3, 2], {"lines": 9}, [0, 1, 2]),
        ([2, 1, 2, 2, 5], {"lines": 3}, [0, 2, 4]),
        ([0, 0, 0], {"lines": 2}, [0, 1]),
        ([1, 3, 2, 0], {"share": 0.5}, [1, 2]),
        ([1, 3, 2, 0], {"share": 1}, [0, 1, 2, 3]),
        ([1, 3, 2, 0], {"share": 0.01}, [1]),
        ([1, 3, 2, 0], {"threshold": 2}, [1, 2]),
        ([1, -3, 2, 0], {"threshold": -3}, [0, 1, 2, 3]),
    ],
)
def test_the_highest_scores_are_chosen_and_of_equals_the_first(scores, wanted, expected):
    assert np.flatnonzero(choose(np.array(scores, dtype=float), **wanted)).tolist() == expected


def test_a_threshold_above_all_scores_is_refused():
    with pytest.raises(ValueError, match="--threshold 4 is above the score of every pair, 3"):
        choose(np.array([1.0, 3.0]), threshold=4)


def test_the_chosen_pairs_are_written_in_the_order_of_the_general_text(folders, tmp_path):
    found = nearest(folders, tmp_path / "out", lines=7)
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers) and len(numbers) == 7
    pairs = zip(*(read_side(tmp_path / "out" / f"train.{lang}") for lang in LANGS), strict=True)
    assert list(pairs) == [POOL[number - 1] for number in numbers]
    scores = scores_of(folders, tmp_path / "all")
    assert min(score for _, score in found) >= sorted(scores.values())[-7]
    for split, held_out in (("dev", DEV), ("test", TEST)):
        assert read_side(tmp_path / "out" / f"{split}.en") == [tgt for _, tgt in held_out]


def test_the_domain_stands_first_and_nothing_twice(folders, tmp_path):
    write_folder(folders[1], [*DOMAIN, POOL[min(OF_DOMAIN) - 1]])
    found = nearest(folders, tmp_path / "out", with_domain=True)
    assert {number for number, _ in found} == OF_DOMAIN - {min(OF_DOMAIN)}
    out = tmp_path / "out"
    pairs = list(zip(*(read_side(out / f"train.{lang}") for lang in LANGS), strict=True))
    assert pairs[: len(DOMAIN)] == DOMAIN and len(pairs) == len(DOMAIN) + PLANTED
    assert read_side(out / "train.origin")[1] == "domain\t2"
    ledger = read_json(out / "ledger.json")
    assert (ledger["read"], ledger["kept"], ledger["left_out_as_in_domain"]) == (
        len(POOL), PLANTED - 1, 1,
    )  # fmt: skip
    assert ledger["pairs_of_domain"] == len(DOMAIN) + 1


def test_the_ledger_shows_the_scores_and_the_lines_at_the_limit(folders, tmp_path):
    found = dict(nearest(folders, tmp_path / "out", lines=10))
    scores = scores_of(folders, tmp_path / "all")
    ledger = read_json(tmp_path / "out" / "ledger.json")
    assert ledger["lowest_kept"] == min(found.values())
    assert ledger["quantiles"]["1"] == max(scores.values())
    assert ledger["quantiles"]["0"] == min(scores.values())
    shown = ledger["examples"]
    every = [example for kind in ("best", "last_kept", "first_left_out", "worst")
             for example in shown[kind]]  # fmt: skip
    assert [example["score"] for example in every] == sorted(
        (example["score"] for example in every), reverse=True
    )
    assert shown["best"][0]["score"] == max(found.values())
    assert shown["last_kept"][-1]["score"] == min(found.values())
    assert shown["first_left_out"][0]["line"] not in found
    for example in every:
        assert scores[example["source"], example["target"]] == example["score"]
        assert POOL[example["line"] - 1] == (example["source"], example["target"])


def test_workers_and_seeds(folders, tmp_path, monkeypatch):
    """One process or several, the bytes are the same; another seed draws other samples."""
    monkeypatch.setattr(nearest_module, "BATCHES_FOR_A_PROCESS", 1)
    big = write_folder(tmp_path / "big", made_up(EVERYDAY, 2500, seed=8), None, None), folders[1]
    one = nearest(big, tmp_path / "one", workers=1)
    two = nearest(big, tmp_path / "two", workers=2)
    assert one == two
    other = nearest(big, tmp_path / "other", seed=2)
    assert one != other


def test_a_folder_is_measured_anew_every_time(folders, tmp_path):
    """Models are remembered by their path, and the path of a folder may come again."""
    nearest(folders, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "old")
    exchanged = (write_folder(tmp_path / "everyday", made_up(EVERYDAY, 60, seed=9)), folders[1])
    found = nearest((folders[0], exchanged[0]), tmp_path / "out")
    assert not OF_DOMAIN & {number for number, _ in found}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"share": 0}, "--share is above 0 and at most 1, not 0"),
        ({"share": 1.5}, "--share is above 0 and at most 1, not 1.5"),
        ({"lines": 0}, "--lines is a number above 0, not 0"),
        ({"workers": 0}, "--workers is a number above 0, not 0"),
        ({"sample_lines": 0}, "--sample-lines is a number above 0, not 0"),
        ({"share": 0.1, "lines": 3}, "one of --share, --lines and --threshold"),
        ({"sides": "left"}, "--sides is source, target, both, not left"),
    ],
)
def test_wrong_options_are_refused(folders, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        nearest(folders, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "general, domain, message",
    [
        ([], DOMAIN, "has 0 different lines"),
        (POOL[:1] * 5, DOMAIN, "has 1 different lines"),
        (POOL, [], "holds no text to be near to"),
        (POOL, [("", "")], "holds no text to be near to"),
    ],
)
def test_too_little_text_is_told_and_nothing_is_left(tmp_path, general, domain, message):
    folders = (
        write_folder(tmp_path / "general", general, None, None),
        write_folder(tmp_path / "domain", domain, None, None),
    )
    with pytest.raises(ValueError, match=message):
        nearest(folders, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_smallest_corpora_work(tmp_path, method):
    general = write_folder(tmp_path / "general", POOL[:2], None, None)
    domain = write_folder(tmp_path / "domain", DOMAIN[:1], None, None)
    assert len(nearest((general, domain), tmp_path / "out", method, lines=1)) == 1


def test_the_domain_cannot_stand_first_without_targets(folders, tmp_path):
    (folders[1] / "train.de").rename(folders[1] / "monolingual.de")
    (folders[1] / "train.en").unlink()
    with pytest.raises(ValueError, match="--with-domain needs train.de and train.en"):
        nearest(folders, tmp_path / "out", with_domain=True)


def test_a_missing_package_is_told_with_what_works_without(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package varikn.*--method tfidf"):
        make_method("cross-entropy-difference")
    assert isinstance(make_method("tfidf"), Tfidf)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["cross-entropy-difference"], CrossEntropyDifference("subwords", 3)),
        (["cross-entropy-difference", "characters"], CrossEntropyDifference("characters", 5)),
        (["cross-entropy-difference", "words", 2], CrossEntropyDifference("words", 2)),
        (["tfidf"], Tfidf()),
        (["tfidf", "words"], "--units and --order say nothing to --method tfidf"),
        (["cross-entropy-difference", None, 0], "--order is a number above 0, not 0"),
    ],
)
def test_methods_by_name(words, expected):
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            make_method(*words)
    else:
        assert make_method(*words) == expected


def test_the_command(folders, tmp_path, capsys):
    found = nearest(folders, tmp_path / "python", Tfidf(), share=0.1, with_domain=True)
    words = ["--general", folders[0], "--domain", folders[1], "--source-lang", "de",
             "--target-lang", "en", "--out", tmp_path / "command"]  # fmt: skip
    _main([*map(str, words), "--method", "tfidf", "--share", "0.1", "--with-domain"])
    for name in ("train.de", "train.en", "train.origin", "ledger.json"):
        ours, theirs = (tmp_path / folder / name for folder in ("python", "command"))
        assert ours.read_bytes() == theirs.read_bytes()
    said = capsys.readouterr().err
    assert f"kept {len(found)} of {len(POOL)} general pairs (10.0%)" in said
    settings = read_manifest(tmp_path / "command")["settings"]
    assert settings["method"] == "tfidf" and settings["share"] == 0.1
