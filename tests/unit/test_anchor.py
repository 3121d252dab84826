"""The penalty of weights that leave their anchor: laws of the arithmetic and of WeightAnchor."""

import copy
import shutil

import pytest
import torch

from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.generation.fairseq_backend import load_models
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.losses import quadratic_penalty
from fairseq_plugins.teachers.anchor import WeightAnchor
from fairseq_plugins.teachers.estimate_fisher import estimate_fisher
from tests.fixtures.models import toy_checkpoint, toy_model
from tests.fixtures.training import toy_data


def tensors(seed, dtype=torch.float64):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=chance, dtype=dtype) for shape in ((2, 3), (4,), ())]


def test_the_penalty_is_half_the_weighted_square():
    weights, anchors = [torch.tensor([1.0, 4.0])], [torch.tensor([2.0, 1.0])]
    assert quadratic_penalty(weights, anchors, [torch.tensor([3.0, 2.0])]) == (3 * 1 + 2 * 9) / 2


def test_its_gradient_is_that_of_finite_differences():
    weights = [tensor.requires_grad_() for tensor in tensors(1)]
    importances = [tensor.abs() for tensor in tensors(3)]
    assert torch.autograd.gradcheck(
        lambda *found: quadratic_penalty(found, tensors(2), importances), weights
    )


def test_on_the_anchor_there_is_no_penalty_and_no_gradient():
    weights = [tensor.requires_grad_() for tensor in tensors(1)]
    penalty = quadratic_penalty(weights, tensors(1), tensors(3))
    penalty.backward()
    assert penalty == 0 and all((weight.grad == 0).all() for weight in weights)


def test_anchor_and_importance_get_no_gradient():
    weights = [tensor.requires_grad_() for tensor in tensors(1)]
    anchors = [tensor.requires_grad_() for tensor in tensors(2)]
    quadratic_penalty(weights, anchors, [1.0] * 3).backward()
    assert all(anchor.grad is None for anchor in anchors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    weights, anchors = ([t.to(dtype) for t in tensors(seed)] for seed in (1, 2))
    found = quadratic_penalty(weights, anchors, [1000.0] * 3)
    exact = quadratic_penalty([w.double() for w in weights], [a.double() for a in anchors],
                              [1000.0] * 3)  # fmt: skip
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


# -- WeightAnchor --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """MODEL folders `general` and `other`, `general.pt`, and `fisher.pt` of the former."""
    root = tmp_path_factory.mktemp("anchor")
    toy_data(root, sentences=12)
    toy_model(root / "general", root / "vocabulary")
    shutil.copyfile(root / "general" / "model.pt", root / "general.pt")
    toy_model(root / "other", root / "vocabulary", seed=2)
    estimate_fisher(root / "general", root / "data", root / "fisher.pt", samples=3)
    return root


@pytest.fixture
def loaded(made):
    """The general network, in training mode, and its task."""
    (network,), task = load_models([open_model(made / "general")])
    return network.train(), task


def moved(network, by=0.1):
    """A copy whose weights all lie ``by`` further."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight += by
    return network


@pytest.mark.parametrize("name", ["general", "general.pt"])
def test_the_penalty_counts_every_trainable_weight_once(made, loaded, name):
    network, task = loaded
    anchor = WeightAnchor(made / name, task, l2=2.0)
    assert anchor.penalty(network) == 0
    number = sum(weight.numel() for weight in network.parameters())  # tied ones once
    stored = load_checkpoint(made / "general.pt")["model"]
    assert sum(weight.numel() for weight in stored.values()) > number
    found = anchor.penalty(moved(network))
    torch.testing.assert_close(found, torch.tensor(number * 0.1**2), rtol=1e-4, atol=0)


def test_the_penalty_of_a_wrapped_model_is_that_of_the_model(made, loaded):
    network, task = loaded
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()
    wrapped.module.module = network = moved(network)
    anchor = WeightAnchor(made / "general", task, l2=1.0)
    assert anchor.penalty(wrapped) == anchor.penalty(network) > 0


def test_fisher_information_of_1_is_l2(made, loaded):
    network, task = loaded
    anchor = WeightAnchor(made / "general", task, ewc_weight=0.3, fisher=made / "fisher.pt")
    network = moved(network)
    weighted = anchor.penalty(network)
    for fisher in anchor._fisher.values():
        fisher.fill_(1.0)
    anchor._held = None
    l2 = WeightAnchor(made / "general", task, l2=0.3).penalty(network)
    torch.testing.assert_close(anchor.penalty(network), l2)
    assert not torch.isclose(weighted, l2, rtol=0.01)


def test_both_penalties_add_up(made, loaded):
    network, task = loaded
    network = moved(network)
    l2, ewc = {"l2": 0.3}, {"ewc_weight": 50.0, "fisher": made / "fisher.pt"}
    alone = [WeightAnchor(made / "general", task, **one).penalty(network) for one in (l2, ewc)]
    both = WeightAnchor(made / "general", task, **l2, **ewc).penalty(network)
    torch.testing.assert_close(both, sum(alone))
    assert min(alone) > 0


def test_frozen_weights_are_not_counted(made, loaded):
    network, task = loaded
    network = moved(network)
    network.encoder.requires_grad_(False)
    number = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    found = WeightAnchor(made / "general", task, l2=2.0).penalty(network)
    torch.testing.assert_close(found, torch.tensor(number * 0.1**2), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_model_starts_on_its_anchor(made, loaded, dtype):
    network, task = loaded
    anchor = WeightAnchor(made / "general", task, l2=1.0)
    assert anchor.penalty(network.to(dtype)) == 0
    assert anchor.penalty(moved(network)).dtype == torch.float32


def test_the_anchor_stays_when_its_file_is_written_over(made, loaded, tmp_path):
    network, task = loaded
    path = shutil.copyfile(made / "general.pt", tmp_path / "general.pt")
    anchor = WeightAnchor(path, task, l2=1.0)
    before = anchor.penalty(moved(network))
    with open(path, "r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert anchor.penalty(moved(network)) == before


def test_an_anchor_of_another_shape_is_refused_by_the_name_of_the_parameter(made, loaded, tmp_path):
    _, task = loaded
    flags = ["--encoder-ffn-embed-dim", "24"]
    toy_checkpoint(tmp_path / "wide.pt", made / "vocabulary", flags=flags)
    anchor = WeightAnchor(tmp_path / "wide.pt", task, l2=1.0)
    message = r"encoder.layers.0.fc1.weight has shape \(16, 16\) in the model and \(24, 16\)"
    with pytest.raises(ValueError, match=message):
        anchor.check(loaded[0])
    with pytest.raises(ValueError, match=message):
        anchor.penalty(loaded[0])


def test_a_weight_that_the_anchor_lacks_is_refused_by_name(made, loaded):
    network, task = loaded
    network.adapter = torch.nn.Linear(2, 2)
    anchor = WeightAnchor(made / "general", task, l2=1.0)
    with pytest.raises(ValueError, match="trains adapter.weight, which the anchor"):
        anchor.penalty(network)
    network.adapter.requires_grad_(False)
    assert anchor.penalty(network) == 0


def test_a_fisher_file_of_another_model_is_refused(made, loaded):
    _, task = loaded
    with pytest.raises(ValueError, match="for other weights than those of .*other"):
        WeightAnchor(made / "other", task, ewc_weight=1.0, fisher=made / "fisher.pt")


def test_a_fisher_file_of_a_model_that_was_tied_otherwise_is_refused(made, loaded):
    network, task = loaded
    anchor = WeightAnchor(made / "general", task, ewc_weight=1.0, fisher=made / "fisher.pt")
    projection = network.decoder.output_projection
    projection.weight = torch.nn.Parameter(projection.weight.detach().clone())
    with pytest.raises(ValueError, match="output_projection.weight, for which --fisher has"):
        anchor.check(network)


def test_an_anchor_with_another_vocabulary_is_refused(made, loaded, tmp_path):
    _, task = loaded
    entries = {"task_state": {"vocabulary": {"dict.de.txt": "0"}}}
    toy_checkpoint(tmp_path / "foreign.pt", made / "vocabulary", **entries)
    with pytest.raises(ValueError, match="foreign.pt was trained with another vocabulary"):
        WeightAnchor(tmp_path / "foreign.pt", task, l2=1.0)
