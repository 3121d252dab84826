"""A student learns more from a teacher than from noisy references alone, at equal updates."""

import pytest
import torch

from tests.fixtures.models import toy_model
from tests.fixtures.training import assemble, toy_data

WORDS, LENGTH, SENTENCES = 20, 4, 64
WIDTH = tuple(
    word
    for side in ("encoder", "decoder")
    for word in (f"--{side}-embed-dim", "64", f"--{side}-ffn-embed-dim", "64")
)
FIRST_WORD = 10  # after the special symbols
NOISE = 0.4  # share of reference words that are drawn at random


def toy_language(generator, noise):
    """A batch of a language in which each word has one translation, in the same order."""
    shape = (SENTENCES, LENGTH)
    source = torch.randint(WORDS, shape, generator=generator)
    target = (7 * source + 3) % WORDS
    drawn = torch.randint(WORDS, shape, generator=generator)
    target = torch.where(torch.rand(shape, generator=generator) < noise, drawn, target)
    end = torch.full((SENTENCES, 1), 2)
    source, target = (torch.cat([side + FIRST_WORD, end], 1) for side in (source, target))
    return {
        "net_input": {
            "src_tokens": source,
            "src_lengths": torch.full((SENTENCES,), LENGTH + 1),
            "prev_output_tokens": target.roll(1, dims=1),
        },
        "target": target,
        "ntokens": target.numel(),
    }


def learn(built, updates, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(built.model.parameters(), lr=3e-3)
    for _ in range(updates):
        loss, size, _ = built.criterion(built.model, toy_language(generator, noise))
        optimiser.zero_grad()
        (loss / size).backward()
        optimiser.step()


@torch.no_grad()
def accuracy(model):
    """Share of words that the model finds likeliest, given the right beginning."""
    test = toy_language(torch.Generator().manual_seed(99), noise=0)
    found = model.eval()(**test["net_input"])[0].argmax(-1)
    return (found == test["target"])[:, :LENGTH].float().mean().item()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared folder, and in place of its teacher one that knows the toy language."""
    root = tmp_path_factory.mktemp("made")
    data, vocabulary = toy_data(root)
    teacher = assemble(data, "label_smoothed_cross_entropy", fairseq=WIDTH)
    learn(teacher, 400, noise=0, seed=7)
    network = teacher.model.eval().requires_grad_(False)
    return data, toy_model(root / "any", vocabulary), network


def student_accuracy(made, weight, updates=100, seed=1):
    data, any_teacher, network = made
    built = assemble(
        data, "word_distillation", "--teacher", any_teacher, "--teacher-weight", weight,
        fairseq=WIDTH, seed=seed,
    )  # fmt: skip
    built.criterion.online_teacher._networks = [network]
    learn(built, updates, NOISE, seed)
    return accuracy(built.model)


def test_a_distilled_student_learns_more_in_as_many_updates_than_a_plain_one(made):
    assert accuracy(made[2]) == 1
    plain, distilled = student_accuracy(made, 0), student_accuracy(made, 0.5)
    assert distilled > plain + 0.2
