"""--init-from-teacher: which layers a student starts from, and what cannot be copied."""

import copy
import re

import pytest
import torch

from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.generation.fairseq_backend import load_models
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.models import initialisation
from fairseq_plugins.models.initialisation import STRATEGIES, initialise, open_initial_teacher
from tests.fixtures.fairseq_cli import train
from tests.fixtures.models import toy_model, toy_vocabulary
from tests.fixtures.prepared import toy_prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Prepared folder `data`; MODEL folder `teacher` of 6 encoder and 4 decoder layers, `student`
    of 3 and 2; `other-vocabulary`, a MODEL folder."""
    root = tmp_path_factory.mktemp("made")
    toy_prepared(root)
    vocabulary = root / "data-vocabulary"
    toy_model(root / "teacher", vocabulary, flags=depth(6, 4))
    toy_model(root / "student", vocabulary, seed=2, flags=depth(3, 2))
    toy_vocabulary(root / "foreign", seed=50)
    toy_model(root / "other-vocabulary", root / "foreign", flags=depth(6, 4))
    return root


def depth(encoder, decoder):
    return ["--encoder-layers", str(encoder), "--decoder-layers", str(decoder)]


def network_of(folder):
    (network,), _ = load_models([open_model(folder)])
    return network


def start(made, network, text):
    teacher = open_initial_teacher(text, read_vocabulary(made / "data"))
    initialise(network, teacher)
    return network


def layers_of(student, teacher, side):
    """For each layer of the student, the number of the teacher's layer with the same weights."""
    found = []
    for layer in getattr(student, side).layers:
        own = layer.state_dict()
        found += [
            number
            for number, theirs in enumerate(getattr(teacher, side).layers)
            if all(weight.equal(own[name]) for name, weight in theirs.state_dict().items())
        ]
    return found


@pytest.mark.parametrize(
    "strategy, encoder, decoder",
    [("first", [0, 1, 2], [0, 1]), ("every-other", [0, 2, 4], [0, 2])],
)
def test_layers_are_those_that_the_strategy_names(made, strategy, encoder, decoder):
    student = start(made, network_of(made / "student"), f"{strategy}={made / 'teacher'}")
    teacher = network_of(made / "teacher")
    assert layers_of(student, teacher, "encoder") == encoder
    assert layers_of(student, teacher, "decoder") == decoder


def test_embeddings_last_norms_and_output_come_along_and_stay_tied(made):
    student = start(made, network_of(made / "student"), f"first={made / 'teacher'}")
    teacher = network_of(made / "teacher").state_dict()
    names = [name for name in student.state_dict() if ".layers." not in name]
    assert {"encoder.embed_tokens.weight", "encoder.layer_norm.weight", "decoder.layer_norm.bias",
            "decoder.output_projection.weight"} <= set(names)  # fmt: skip
    for name in names:
        assert student.state_dict()[name].equal(teacher[name])
    assert student.encoder.embed_tokens.weight is student.decoder.output_projection.weight


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_equal_depth_the_student_computes_what_the_teacher_computes(made, tmp_path, strategy):
    toy_model(tmp_path / "student", made / "data-vocabulary", seed=3, flags=depth(6, 4))
    student = start(made, network_of(tmp_path / "student"), f"{strategy}={made / 'teacher'}")
    teacher = network_of(made / "teacher")
    for name, weight in teacher.state_dict().items():
        assert student.state_dict()[name].equal(weight), name
    tokens = torch.randint(4, 290, (3, 7))
    with torch.no_grad():
        computed = [
            network.double()(tokens, torch.tensor([7, 7, 7]), tokens[:, :5])[0]
            for network in (student, teacher)
        ]
    torch.testing.assert_close(*computed, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "n, total, expected",
    [
        (3, 6, [0, 2, 4]), (6, 12, [0, 2, 4, 6, 8, 10]), (1, 6, [0]), (2, 6, [0, 3]),
        (4, 6, [0, 1, 3, 4]), (3, 12, [0, 4, 8]), (6, 6, [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_every_other_layer_is_spread_evenly(n, total, expected):
    assert STRATEGIES["every-other"](n, total) == expected
    assert STRATEGIES["first"](n, total) == list(range(n))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--encoder-ffn-embed-dim", "32"],
         "the encoders differ: feed-forward width 32 in the student, 16 in .*teacher"),
        (["--decoder-attention-heads", "4"], "decoders differ: heads 4 in the student, 2 in"),
        (["--encoder-embed-dim", "32", "--decoder-embed-dim", "32"],
         "width 32 in the student, 16 in"),
        (["--activation-fn", "gelu"], "activation gelu in the student, relu in"),
        (["--decoder-learned-pos"], "embed_positions"),
        (["--no-scale-embedding"], "scale of embeddings 1.0 in the student, 4.0 in"),
        (depth(7, 2), "the student's encoder has 7 layers, that of .*teacher has 6"),
        (depth(3, 5), "the student's decoder has 5 layers, that of .*teacher has 4"),
    ],
)  # fmt: skip
def test_a_student_of_another_shape_is_refused(made, tmp_path, flags, message):
    toy_model(tmp_path / "student", made / "data-vocabulary", flags=[*depth(3, 2), *flags])
    with pytest.raises(ValueError, match=message):
        start(made, network_of(tmp_path / "student"), f"first={made / 'teacher'}")


def test_post_norm_is_not_pre_norm(made):
    student = network_of(made / "student")
    student.encoder.layers[0].normalize_before = False
    with pytest.raises(ValueError, match="pre-norm False in the student, True in"):
        start(made, student, f"first={made / 'teacher'}")


def test_embeddings_that_the_student_ties_are_tied_in_the_teacher(made, monkeypatch):
    student = network_of(made / "student")
    teacher = open_initial_teacher(f"first={made / 'teacher'}", read_vocabulary(made / "data"))
    untied = network_of(made / "teacher")
    untied.encoder.embed_tokens = copy.deepcopy(untied.encoder.embed_tokens)
    backend = initialisation.fairseq_backend
    monkeypatch.setattr(backend, "load_models", lambda *_, **__: ([untied], None))
    with pytest.raises(ValueError, match="has separate embeddings for source and target"):
        initialise(student, teacher)


# -- under fairseq-train ---------------------------------------------------------------------


def train_student(made, out, *words, task="sequence_distillation"):
    pre_norm = ("--encoder-normalize-before", "--decoder-normalize-before")
    return train(made / "data", out, *depth(3, 2), *pre_norm, "--valid-beam", 0, *words, task=task)


def test_training_starts_from_the_teacher_once(made, tmp_path):
    flags = ("--init-from-teacher", f"every-other={made / 'teacher'}", "--max-tokens", 1000)
    done = train_student(made, tmp_path, *flags, "--max-update", 1, "--lr", 1e-7)
    assert done.status == 0, done.output
    assert re.search(r"encoder layers of the student start as layers 0, 2, 4 \(from 0\) of .*'s 6",
                     done.output)  # fmt: skip
    teacher = load_checkpoint(made / "teacher" / "model.pt")["model"]
    learnt = copy.deepcopy(load_checkpoint(tmp_path / "checkpoint_last.pt")["model"])
    for ours, theirs in (
        ("encoder.layers.2", "encoder.layers.4"), ("decoder.layers.1", "decoder.layers.2")
    ):  # fmt: skip
        torch.testing.assert_close(
            learnt[f"{ours}.fc1.weight"], teacher[f"{theirs}.fc1.weight"], rtol=0, atol=1e-6
        )
        assert not learnt[f"{ours}.fc1.weight"].equal(teacher[f"{theirs}.fc1.weight"])
    # going on: what was learnt stays, the teacher is not copied again
    done = train_student(made, tmp_path, *flags, "--max-update", 2, "--lr", 0, "--stop-min-lr", -1)
    assert done.status == 0 and "of the student start as" not in done.output
    for name, weight in load_checkpoint(tmp_path / "checkpoint_last.pt")["model"].items():
        assert weight.equal(learnt[name]), name


@pytest.mark.parametrize(
    "text, message",
    [
        ("last={teacher}", "--init-from-teacher is first=MODEL or every-other=MODEL, not 'last="),
        ("first=", "--init-from-teacher is first=MODEL or every-other=MODEL, not 'first='"),
        ("first={teacher}-none", "teacher-none is missing"),
        ("first={other}", "was trained with another vocabulary"),
    ],
)
def test_bad_values_are_refused_before_training(made, tmp_path, text, message):
    text = text.format(teacher=made / "teacher", other=made / "other-vocabulary")
    done = train_student(made, tmp_path, "--init-from-teacher", text, "--max-update", 1)
    assert done.status != 0 and message in done.output, done.output
    assert "begin training" not in done.output


@pytest.mark.parametrize("flag", ["--finetune-from-model", "--restore-file"])
@pytest.mark.parametrize("task", ["sequence_distillation", "domain_adaptation"])
def test_weights_come_from_one_place(made, tmp_path, flag, task):
    done = train_student(
        made, tmp_path, "--init-from-teacher", f"first={made / 'teacher'}",
        flag, made / "student" / "model.pt", "--max-update", 1, task=task,
    )  # fmt: skip
    assert done.status != 0
    assert "both say where the weights come from; drop one of them" in done.output
