"""Minimum-risk training mends what a student has learnt from its teacher's best translations."""

import random

import pytest

from data_prep.binarise import binarise
from data_prep.vocabulary import make_vocabulary
from tests.fixtures.candidates import toy_candidates, write_nbest
from tests.fixtures.fairseq_cli import train
from tests.fixtures.models import SYLLABLES, write_text

WORDS = SYLLABLES[:12]
RIGHT = dict(zip(WORDS, reversed(WORDS), strict=True))
MISTAKEN = {**RIGHT, WORDS[2]: WORDS[7], WORDS[5]: WORDS[1], WORDS[9]: WORDS[4]}
SIZE = ("--encoder-embed-dim", 32, "--decoder-embed-dim", 32, "--dropout", 0, "--lr", 0.003,
        "--encoder-ffn-embed-dim", 64, "--decoder-ffn-embed-dim", 64, "--max-tokens", 800,
        "--valid-beam", 1, "--validate-interval", 1000)  # fmt: skip


def corpus(root, seed):
    """A teacher that always mistakes three of twelve words has the better second in its lists."""
    chance = random.Random(seed)
    text, distilled = root / "text", root / "distilled"
    for folder in (text, distilled):
        folder.mkdir()
    for split, number in (("train", 600), ("dev", 60), ("test", 5)):
        sources = [chance.choices(WORDS, k=chance.randint(3, 6)) for _ in range(number)]
        write_text(text / f"{split}.de", map(" ".join, sources))
        write_text(text / f"{split}.en", (" ".join(map(RIGHT.get, line)) for line in sources))
        lists = []
        for line in sources:
            best, second = (" ".join(map(words.get, line)) for words in (MISTAKEN, RIGHT))
            third = " ".join(chance.sample(best.split(), len(line)))
            lists.append([best, second, third, best.rpartition(" ")[0]])
        write_nbest(root / f"{split}.nbest", lists)
        if split == "train":
            write_text(distilled / "train.de", map(" ".join, sources))
            write_text(distilled / "train.en", (row[0] for row in lists))
    make_vocabulary(text, "de", "en", 275, root / "vocabulary")
    binarise(distilled, root / "vocabulary", root / "prepared", held_out=text)
    toy_candidates(root, root / "candidates")
    toy_candidates(root, root / "dev", split="valid")


def dev_scores(root, out, seed, *words):
    """(expected cost, chrF of greedy output) on the dev set at the end of training."""
    folders = f"{root / 'candidates'}:{root / 'dev'}"
    done = train(root / "prepared", out, *SIZE, "--criterion", "minimum_risk", "--seed", seed,
                 "--candidates", folders, *words)  # fmt: skip
    assert done.status == 0, done.output
    entries = done.entries("valid")
    return entries[-1]["valid_risk"], entries[-1]["valid_chrf_greedy"]


@pytest.mark.parametrize("seed", [1])
def test_the_cheaper_candidates_win_where_the_likelihood_keeps_the_mistakes(tmp_path, seed):
    corpus(tmp_path, seed)
    words = ("--max-update", 250, "--risk-weight", 0)
    scores = {"start": dev_scores(tmp_path, tmp_path / "start", seed, *words)}
    for name, weight in (("nll", 0), ("risk", 0.9)):
        scores[name] = dev_scores(
            tmp_path, tmp_path / name, seed, "--max-update", 100, "--risk-weight", weight,
            "--risk-sharpness", 3, "--finetune-from-model",
            tmp_path / "start" / "checkpoint_last.pt",
        )  # fmt: skip
    print(scores)
    assert scores["risk"][0] < scores["nll"][0] - 5
    assert scores["risk"][1] > scores["nll"][1] + 5
