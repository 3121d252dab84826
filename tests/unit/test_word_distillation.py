"""The laws of criterion word_distillation, on one batch of a tiny transformer."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from fairseq.tasks.translation import TranslationTask  # noqa: F401

from tests.fixtures.models import toy_model
from tests.fixtures.training import assemble, toy_data

WORD = ("--label-smoothing", 0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A prepared folder, and two teachers for its vocabulary."""
    root = tmp_path_factory.mktemp("made")
    data, vocabulary = toy_data(root)
    return SimpleNamespace(
        data=data, root=root,
        teacher=toy_model(root / "teacher", vocabulary, seed=5),
        other=toy_model(root / "other", vocabulary, seed=6),
    )  # fmt: skip


def word(made, *words, **settings):
    return assemble(made.data, "word_distillation", "--teacher", made.teacher, *words, **settings)


def test_smoke(made):
    a = word(made)
    print(a.loss())
    for d in ("reverse-kl", "jensen-shannon"):
        print(d, word(made, "--divergence", d).loss()[0])
    for k in (0, 5, 301):
        for t in ("bucket", "renormalise"):
            for T in (1, 2):
                print(k, t, T, word(made, "--teacher-top-k", k, "--teacher-tail", t, "--teacher-temperature", T).loss()[0])
