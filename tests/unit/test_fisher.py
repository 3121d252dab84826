"""Fisher information: the arithmetic against a double loop by hand, and dad-estimate-fisher."""

import json
import shutil

import pytest
import torch

from data_prep.files import sha256
from data_prep.manifest import manifest_path
from fairseq_plugins.checkpoints import load_checkpoint, load_tensors, weights_fingerprint
from fairseq_plugins.generation.fairseq_backend import load_models
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.teachers import estimate_fisher as command
from fairseq_plugins.teachers.estimate_fisher import estimate_fisher
from fairseq_plugins.teachers.fisher import (
    FisherSum,
    draw_labels,
    read_fisher,
    sentence_seed,
    squared_gradients,
)
from tests.fixtures.models import toy_model
from tests.fixtures.training import toy_data

SENTENCES = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A MODEL folder `model`, and `data`, prepared with its vocabulary."""
    root = tmp_path_factory.mktemp("fisher")
    toy_data(root, SENTENCES)
    toy_model(root / "model", root / "vocabulary")
    return root


@pytest.fixture(scope="module")
def loaded(made):
    """Network in float64 and its sentence pairs."""
    folder = open_model(made / "model")
    (network,), task = load_models([folder])
    return network.double(), command._pairs(task, made / "data", "train", folder.vocabulary)


def by_hand(network, pairs, numbers):
    """Squared gradients of each sentence's log-probability, from one padded batch of them all."""
    batch = pairs.collater([pairs[number] for number in numbers])
    totals, tokens = {}, 0
    for row in range(len(numbers)):
        output = network(**batch["net_input"])
        logits = output[0][row]
        network.zero_grad()
        log_prob = 0
        for position, label in enumerate(batch["target"][row].tolist()):
            if label != network.decoder.dictionary.pad():
                log_prob = log_prob + logits[position].log_softmax(-1)[label]
                tokens += 1
        log_prob.backward()
        for name, weight in network.named_parameters():
            square = torch.zeros_like(weight) if weight.grad is None else weight.grad**2
            totals[name] = totals.get(name, 0) + square
    network.zero_grad()
    return {name: total / tokens for name, total in totals.items()}


def added_up(network, pairs, numbers, labels="reference"):
    total = FisherSum.zeros(network)
    for number in numbers:
        sample = pairs.collater([pairs[number]])
        total.add(*squared_gradients(network, sample, labels, sentence_seed(1, number)))
    return total


def test_it_is_the_mean_of_each_sentences_squared_gradient_whatever_the_padding(loaded):
    network, pairs = loaded
    numbers = range(4)
    lengths = {len(pairs[number]["target"]) for number in numbers}
    assert len(lengths) > 1, "a batch of these has padding"
    found = added_up(network, pairs, numbers).per_token()
    expected = by_hand(network, pairs, list(numbers))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name].float(), rtol=1e-5, atol=1e-9)
    assert sum(value.sum() for value in found.values()) > 0


def test_it_is_not_the_square_of_the_batchs_gradient(loaded):
    network, pairs = loaded
    batch = pairs.collater([pairs[number] for number in range(4)])
    lprobs = network.get_normalized_probs(network(**batch["net_input"]), log_probs=True)
    chosen = lprobs.gather(-1, batch["target"].unsqueeze(-1)).squeeze(-1)
    total = chosen.masked_fill(batch["target"].eq(network.decoder.dictionary.pad()), 0).sum()
    name, weight = next(iter(network.named_parameters()))
    (gradient,) = torch.autograd.grad(total, [weight])
    summed = added_up(network, pairs, range(4)).sums[name]
    assert not torch.allclose(summed, gradient.float() ** 2, rtol=0.1)


def test_parts_of_a_text_add_up_to_the_whole(loaded):
    network, pairs = loaded
    whole = added_up(network, pairs, range(6), "model")
    first = added_up(network, pairs, range(4, 6), "model")
    second = added_up(network, pairs, range(4), "model")
    assert (whole.done, whole.tokens) == (6, first.tokens + second.tokens)
    for name, value in whole.sums.items():
        torch.testing.assert_close(value, first.sums[name] + second.sums[name])


def test_tied_weights_stand_once(loaded):
    network, pairs = loaded
    names = added_up(network, pairs, [0]).sums.keys()
    assert "encoder.embed_tokens.weight" in names
    assert "decoder.embed_tokens.weight" not in names
    assert "decoder.output_projection.weight" not in names


def test_drawn_labels_follow_the_network():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    lprobs = probs.log().repeat(4000, 1).view(1, 8000, 3)
    drawn = draw_labels(lprobs, torch.Generator().manual_seed(1)).view(4000, 2)
    for position in (0, 1):
        shares = torch.bincount(drawn[:, position], minlength=3) / 4000
        torch.testing.assert_close(shares, probs[position], rtol=0, atol=0.03)


def test_drawn_labels_give_the_fisher_information_itself(loaded):
    """Mean over draws = sum over labels of p (d log p)^2, position by position."""
    network, pairs = loaded
    sample = pairs.collater([pairs[0]])
    bias = dict(network.named_parameters())["decoder.layer_norm.bias"]
    output = network(**sample["net_input"])
    lprobs = network.get_normalized_probs(output, log_probs=True)[0]
    exact = torch.zeros_like(bias)
    for position in lprobs:
        for lprob in position:
            (gradient,) = torch.autograd.grad(lprob, [bias], retain_graph=True)
            exact += lprob.exp().detach() * gradient**2
    for weight in network.parameters():
        weight.requires_grad_(weight is bias)
    draws = 300
    total = sum(
        squared_gradients(network, sample, "model", seed)[0]["decoder.layer_norm.bias"]
        for seed in range(draws)
    )
    network.requires_grad_(True)
    torch.testing.assert_close((total / draws).double().sum(), exact.sum(), rtol=0.1, atol=0)


def test_fisher_predicts_what_moving_the_weights_costs(loaded):
    """1/2 sum F delta^2 is the divergence from the network as it was, for one weight moved."""
    network, pairs = loaded
    numbers = range(SENTENCES)
    total = FisherSum.zeros(network)
    for seed in range(20):
        for number in numbers:
            sample = pairs.collater([pairs[number]])
            total.add(*squared_gradients(network, sample, "model", seed * 100 + number))
    fisher = total.per_token()["decoder.layer_norm.bias"]
    which, step = int(fisher.argmax()), 0.05
    batch = pairs.collater([pairs[number] for number in numbers])
    mask = batch["target"].ne(network.decoder.dictionary.pad())
    with torch.no_grad():
        before = network.get_normalized_probs(network(**batch["net_input"]), log_probs=True)
        network.decoder.layer_norm.bias[which] += step
        after = network.get_normalized_probs(network(**batch["net_input"]), log_probs=True)
        network.decoder.layer_norm.bias[which] -= step
    divergence = (before.exp() * (before - after)).sum(-1)[mask].mean()
    predicted = fisher[which] * step**2 / 2
    torch.testing.assert_close(predicted, divergence.float(), rtol=0.15, atol=0)


# -- the command ---------------------------------------------------------------------------


def test_the_file_says_what_it_belongs_to(made, tmp_path):
    manifest = estimate_fisher(made / "model", made / "data", tmp_path / "fisher.pt", samples=5)
    assert manifest["counts"]["sentences"] == 5 and manifest["counts"]["too_long"] == 0
    found = load_tensors(tmp_path / "fisher.pt", "Fisher file")
    weights = load_checkpoint(made / "model" / "model.pt")["model"]
    assert found["model"] == weights_fingerprint(weights)
    assert found["counts"]["tokens"] == manifest["counts"]["tokens"] > 5
    for name, value in found["fisher"].items():
        assert value.shape == weights[name].shape and value.dtype == torch.float32
        assert (value >= 0).all()


def values(path):
    fisher = load_tensors(path, "Fisher file")["fisher"]
    return torch.cat([value.flatten() for value in fisher.values()])


@pytest.mark.parametrize(
    "other", [{"labels": "reference"}, {"seed": 2}, {"samples": 6}, {"split": "valid"}]
)
def test_every_option_changes_the_result(made, tmp_path, other):
    settings = {"samples": 5, "labels": "model", "seed": 1, "split": "train"}
    estimate_fisher(made / "model", made / "data", tmp_path / "a.pt", **settings)
    estimate_fisher(made / "model", made / "data", tmp_path / "b.pt", **{**settings, **other})
    assert not torch.equal(values(tmp_path / "a.pt"), values(tmp_path / "b.pt"))


@pytest.mark.parametrize("samples", [0, 99])
def test_0_samples_or_more_than_there_are_take_all_sentences(made, tmp_path, samples):
    manifest = estimate_fisher(made / "model", made / "data", tmp_path / "f.pt", samples=samples)
    assert manifest["counts"]["sentences"] == SENTENCES


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(made, tmp_path, monkeypatch, capsys):
    straight, broken = tmp_path / "straight" / "f.pt", tmp_path / "broken" / "f.pt"
    for path in (straight, broken):
        path.parent.mkdir()
    estimate_fisher(made / "model", made / "data", straight, samples=6)
    monkeypatch.setattr(command, "SECONDS_BETWEEN_SAVES", 0)
    whole, calls = command.squared_gradients, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(command, "squared_gradients", killed)
    with pytest.raises(KeyboardInterrupt):
        estimate_fisher(made / "model", made / "data", broken, samples=6)
    assert not broken.exists()
    with pytest.raises(ValueError, match="--samples was 6, is 7; remove it to start afresh"):
        estimate_fisher(made / "model", made / "data", broken, samples=7)
    estimate_fisher(made / "model", made / "data", broken, samples=6)
    assert "going on after 4 sentences" in capsys.readouterr().err
    assert len(calls) == 5 + 2
    assert broken.read_bytes() == straight.read_bytes()
    assert sorted(path.name for path in broken.parent.iterdir()) == ["f.pt", "f.pt.manifest.json"]


def test_what_is_there_is_not_made_again(made, tmp_path, capsys):
    out = tmp_path / "f.pt"
    estimate_fisher(made / "model", made / "data", out, samples=3)
    before = out.stat().st_mtime_ns
    estimate_fisher(made / "model", made / "data", out, samples=3)
    assert "is there already" in capsys.readouterr().err and out.stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="--samples was 3, is 4; pass --overwrite"):
        estimate_fisher(made / "model", made / "data", out, samples=4)
    manifest_path(out).unlink()  # as a kill just before the end leaves it
    estimate_fisher(made / "model", made / "data", out, samples=3)
    assert json.loads(manifest_path(out).read_text())["counts"]["sentences"] == 3
    manifest_path(out).unlink()
    with pytest.raises(FileExistsError, match="has no manifest"):
        estimate_fisher(made / "model", made / "data", out, samples=4)
    estimate_fisher(made / "model", made / "data", out, samples=4, overwrite=True)


def test_a_file_that_was_changed_is_noticed(made, tmp_path):
    out = tmp_path / "f.pt"
    estimate_fisher(made / "model", made / "data", out, samples=3)
    out.write_bytes(out.read_bytes() + b" ")
    with pytest.raises(FileExistsError, match="it was changed after it was made"):
        estimate_fisher(made / "model", made / "data", out, samples=3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"samples": -1}, "--samples is 1 or more, or 0 for all sentences, not -1"),
        ({"labels": "gold"}, "--labels is one of model, reference, not gold"),
        ({"device": "tpu"}, "--device is one of auto, cpu, cuda, not tpu"),
        ({"split": "exam"}, r"exam.de-en.de.bin is missing"),
    ],
)
def test_a_bad_option_is_refused(made, tmp_path, settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        estimate_fisher(made / "model", made / "data", tmp_path / "f.pt", **settings)
    assert list(tmp_path.iterdir()) == []


def test_data_of_another_vocabulary_are_refused(made, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    dictionary, record = tmp_path / "data" / "dict.de.txt", tmp_path / "data" / "vocabulary.json"
    dictionary.write_text(dictionary.read_text() + "more 1\n")
    changed = json.loads(record.read_text())
    changed["files"]["dict.de.txt"] = sha256(dictionary)
    record.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        estimate_fisher(made / "model", tmp_path / "data", tmp_path / "f.pt")


def test_sentences_longer_than_the_model_takes_are_left_out_and_counted(made, tmp_path, capsys):
    toy_model(tmp_path / "short", made / "vocabulary",
              flags=["--max-target-positions", "12"])  # fmt: skip
    manifest = estimate_fisher(tmp_path / "short", made / "data", tmp_path / "f.pt", samples=0)
    counts = manifest["counts"]
    assert counts["too_long"] > 0 and counts["sentences"] + counts["too_long"] == SENTENCES
    assert f"{counts['too_long']} of 12 sentences are left out" in capsys.readouterr().err


# -- reading it ----------------------------------------------------------------------------


def test_a_fisher_file_is_refused_for_any_other_model(made, tmp_path):
    out = tmp_path / "f.pt"
    estimate_fisher(made / "model", made / "data", out, samples=2)
    found = load_tensors(out, "Fisher file")
    right = found["model"], found["vocabulary"]
    assert read_fisher(out, "general.pt", *right).keys() == found["fisher"].keys()
    with pytest.raises(ValueError, match="for other weights than those of general.pt"):
        read_fisher(out, "general.pt", "0" * 64, right[1])
    with pytest.raises(ValueError, match="another vocabulary: dict.de.txt differs"):
        read_fisher(out, "general.pt", right[0], {**right[1], "dict.de.txt": "0"})
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="was not made by dad-estimate-fisher"):
        read_fisher(tmp_path / "checkpoint.pt", "general.pt", *right)
    (tmp_path / "torn.pt").write_bytes(out.read_bytes()[:2000])
    with pytest.raises(ValueError, match="Fisher file .* is damaged"):
        read_fisher(tmp_path / "torn.pt", "general.pt", *right)
