"""LoRA under stock fairseq-train: the start, what learns, resuming, merging, and use."""

import copy
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export.export import export
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.generation.fairseq_backend import load_models, quiet
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.models.lora import (
    LowRankUpdate,
    add_lora,
    merged,
    once_per_batch,
    read_any_checkpoint,
)
from tests.fixtures.fairseq_cli import TINY, run, train
from tests.fixtures.models import read_text, toy_lines, write_text
from tests.fixtures.prepared import toy_prepared

LORA = ("--lora-rank", 3, "--lora-alpha", 7)  # a scale that is no round number


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Prepared folder `data`; `general`, a model of two updates; `run`, its LoRA training of four
    updates in two epochs; `adapted`, the model kept of that."""
    root = tmp_path_factory.mktemp("made")
    toy_prepared(root)
    trained = train(root / "data", root / "general-run", "--max-update", 2, "--lr", 0.01)
    assert trained.status == 0, trained.output
    keep_weights(root / "general-run" / "checkpoint_best.pt", root / "data", root / "general")
    done = adapt(root, root / "run", *LORA)
    assert done.status == 0, done.output
    (root / "screen.txt").write_text(done.output)
    keep_weights(root / "run" / "checkpoint_last.pt", root / "data", root / "adapted")
    return root


def adapt(made, out, *words):
    """Two epochs of two updates of domain_adaptation from the general model."""
    return train(
        made / "data", out, "--finetune-from-model", made / "general" / "model.pt",
        "--epoch-fraction", 0.5, "--update-freq", 1, "--max-tokens", 250, "--max-epoch", 2,
        "--lr", 0.05, "--valid-beam", 0, *words, task="domain_adaptation",
    )  # fmt: skip


def weights(path):
    return load_checkpoint(path)["model"]


def network_of(folder):
    """The network of a MODEL folder, its dictionary, and what it computes for some text."""
    (network,), task = load_models([open_model(folder)])
    return network, task


def logits(network):
    """What the network computes in float64, in which the order of sums hardly matters."""
    network = copy.deepcopy(network).double()
    torch.manual_seed(4)
    src, tgt = torch.randint(4, 290, (3, 7)), torch.randint(4, 290, (3, 5))
    with torch.no_grad():
        return network(src, torch.tensor([7, 7, 7]), tgt)[0]


# -- the start -------------------------------------------------------------------------------


def test_at_the_start_the_model_is_unchanged_to_the_bit(made):
    network, _ = network_of(made / "general")
    before = {
        name: module.weight.clone()
        for name, module in network.named_modules() if hasattr(module, "weight")
    }  # fmt: skip
    computed = logits(network)
    add_lora(network, 3, 7)
    for name, weight in before.items():
        assert network.get_submodule(name).weight.equal(weight), name
    torch.testing.assert_close(logits(network), computed, rtol=0, atol=1e-12)


def test_every_update_changes_what_is_computed(made):
    """fairseq's attention reads weights without calling their layers; ours must reach it."""
    network, _ = network_of(made / "general")
    before = logits(network)
    add_lora(network, 3)
    updates = {name: weight for name, weight in network.named_parameters() if "lora_b" in name}
    assert len(updates) == 4 + 2 + 8 + 2  # attention and feed-forward of encoder and decoder
    for name, weight in updates.items():
        with torch.no_grad():
            weight.copy_(torch.randn_like(weight))
            assert not torch.allclose(logits(network), before, atol=1e-4), name
            weight.zero_()
    torch.testing.assert_close(logits(network), before, rtol=0, atol=1e-12)


def test_gradients_reach_every_update_and_nothing_else(made):
    network, _ = network_of(made / "general")
    add_lora(network, 3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_b" in name:
                weight.normal_()
    torch.manual_seed(4)
    src, tgt = torch.randint(4, 290, (3, 7)), torch.randint(4, 290, (3, 5))
    network(src, torch.tensor([7, 7, 7]), tgt)[0].square().sum().backward()
    for name, weight in network.named_parameters():
        assert (weight.grad is not None and weight.grad.abs().sum() > 0) == ("lora_" in name), name


@pytest.mark.parametrize(
    "layers, count",
    [
        ("attention", 12),
        ("ffn", 4),
        (r"encoder\.layers.*\.(q|v)_proj", 2),
        (r"(q|v)_proj,decoder.*fc1", 7),
    ],
)
def test_updates_go_to_the_chosen_layers(made, layers, count):
    network, _ = network_of(made / "general")
    add_lora(network, 2, layers=layers)
    assert sum("lora_b" in name for name, _ in network.named_parameters()) == count


def test_alpha_scales_the_update(made):
    network, _ = network_of(made / "general")
    add_lora(network, 4, alpha=2.0, layers="fc1")
    plain = network.encoder.layers[0].fc1.parametrizations.weight.original
    update = network.encoder.layers[0].fc1.parametrizations.weight[0]
    with torch.no_grad():
        update.lora_b.normal_()
    difference = network.encoder.layers[0].fc1.weight - plain
    torch.testing.assert_close(difference, 0.5 * update.lora_b @ update.lora_a)
    network, _ = network_of(made / "general")
    add_lora(network, 4)
    assert network.encoder.layers[0].fc1.parametrizations.weight[0].scale == 2


def test_in_decoding_a_weight_is_merged_once_for_a_batch(made):
    network, _ = network_of(made / "general")
    add_lora(network, 3)
    layer = network.decoder.layers[0].fc1
    assert layer.weight is not layer.weight
    with once_per_batch():
        assert layer.weight is layer.weight
    with torch.no_grad():
        layer.parametrizations.weight[0].lora_b.fill_(1.0)
    assert not layer.weight.equal(layer.parametrizations.weight.original)  # nothing stale


def test_validation_merges_each_weight_once_for_a_batch(made, tmp_path):
    command = [
        made / "data", "--task", "domain_adaptation", "--finetune-from-model",
        made / "general" / "model.pt", *LORA, "--save-dir", tmp_path, "--valid-beam", 2, *TINY,
    ]  # fmt: skip
    with quiet():
        args = options.parse_args_and_arch(options.get_training_parser(), list(map(str, command)))
        cfg = convert_namespace_to_omegaconf(args)
        task = tasks.setup_task(cfg.task)
        network, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
        task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[number] for number in range(3)])
    merges = Counter()
    for name, module in network.named_modules():
        if isinstance(module, LowRankUpdate):
            module.register_forward_hook(lambda *_, name=name: merges.update([name]))
    task.valid_step(batch, network, criterion)  # the loss, a beam and greedy
    assert len(merges) == 16 and set(merges.values()) == {1}


# -- training --------------------------------------------------------------------------------


def test_only_updates_learn_and_only_they_are_in_the_optimiser(made):
    before, state = weights(made / "general" / "model.pt"), load_checkpoint(
        made / "run" / "checkpoint_last.pt"
    )
    after = state["model"]
    updates = {name for name in after if "lora_" in name}
    assert len(updates) == 2 * 16
    for name in after.keys() - updates:
        plain = name.replace("parametrizations.weight.original", "weight")
        assert "scale" in name or after[name].equal(before[plain]), name
    assert all(after[name].abs().sum() > 0 for name in updates)
    assert len(state["last_optimizer_state"]["state"]) == len(updates)
    total = sum(after[name].numel() for name in updates)
    said = (made / "screen.txt").read_text()
    assert f"--lora-rank 3: {total:,} of " in said and f"(num. trained: {total:,})" in said


def test_an_interrupted_training_ends_with_the_same_updates(made, tmp_path):
    assert adapt(made, tmp_path, *LORA, "--max-epoch", 1).status == 0
    assert adapt(made, tmp_path, *LORA).status == 0
    straight = weights(made / "run" / "checkpoint_last.pt")
    broken = weights(tmp_path / "checkpoint_last.pt")
    assert straight.keys() == broken.keys()
    for name, tensor in straight.items():
        assert tensor.equal(broken[name]), name


@pytest.mark.parametrize("flags", [LORA, ("--freeze", "encoder,embeddings")])
def test_two_workers_learn_what_one_learns_from_two_batches(made, tmp_path, flags):
    words = (*flags, "--dropout", 0, "--disable-validation")
    together = (
        "--distributed-world-size", 2, "--distributed-backend", "gloo", "--distributed-no-spawn",
        "--ddp-backend", "legacy_ddp",  # fairseq's call of PyTorch's own wants a GPU
        # what fairseq sends otherwise holds types that PyTorch refuses since 2.6
        "--load-checkpoint-on-all-dp-ranks",
        "--distributed-init-method", f"file://{tmp_path / 'meeting'}",
    )  # fmt: skip
    with ThreadPoolExecutor() as workers:
        runs = [workers.submit(adapt, made, tmp_path / "alone", *words, "--update-freq", 2)]
        runs += [
            workers.submit(adapt, made, tmp_path / "both", *words, *together,
                           "--distributed-rank", rank)
            for rank in (1, 0)
        ]  # fmt: skip
    for done in runs:
        assert done.result().status == 0, done.result().output
    alone, both = (weights(tmp_path / name / "checkpoint_last.pt") for name in ("alone", "both"))
    before = merged(weights(made / "general" / "model.pt"))
    assert any(not tensor.equal(before[name]) for name, tensor in merged(both).items())
    for name, tensor in alone.items():
        torch.testing.assert_close(both[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "--lora-rank 3, not 0"),
        (("--lora-rank", 4, "--lora-alpha", 7), "--lora-rank 3, not 4"),
        (("--lora-rank", 3), "--lora-alpha 7.0, not None"),
        ((*LORA, "--lora-layers", "ffn"), "--lora-layers None, not ffn"),
    ],
)
def test_training_does_not_go_on_with_other_updates(made, flags, message):
    done = adapt(made, made / "run", *flags, "--max-epoch", 3)
    assert done.status != 0 and message in done.output, done.output


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--lora-rank", -1), "--lora-rank is 0 (no LoRA) or more, not -1"),
        (("--lora-rank", 16), "--lora-rank 16 is not low for encoder.layers.0.self_attn"),
        (("--lora-rank", 2, "--lora-alpha", 0), "--lora-alpha is a number above 0, not 0"),
        (("--lora-alpha", 4), "--lora-alpha 4.0 has no effect without --lora-rank"),
        (("--lora-layers", "ffn"), "--lora-layers ffn has no effect without --lora-rank"),
        (("--lora-rank", 2, "--lora-layers", "output"), "is tied to the embeddings"),
        (("--lora-rank", 2, "--lora-layers", "embeddings"),
         "--lora-layers 'embeddings' fits none of the weights; there are encoder.layers.N"),
        (("--lora-rank", 2, "--freeze", "encoder"), "drop --freeze encoder"),
    ],
)  # fmt: skip
def test_bad_flags_are_refused_before_training(made, tmp_path, flags, message):
    done = adapt(made, tmp_path, *flags)
    assert done.status != 0 and message in done.output, done.output
    assert "begin training" not in done.output


def test_random_weights_are_not_adapted(made, tmp_path):
    done = train(made / "data", tmp_path, "--lora-rank", 2, "--max-update", 1, "--lr", 0.01)
    assert done.status != 0 and "name it with --finetune-from-model" in done.output


# -- merging and use -------------------------------------------------------------------------


def test_the_kept_model_is_an_ordinary_one_that_computes_the_same(made):
    state = load_checkpoint(made / "adapted" / "model.pt")
    plain = weights(made / "general" / "model.pt")
    assert state["model"].keys() == plain.keys()
    assert {name for name in plain if not plain[name].equal(state["model"][name])} == {
        name for name in plain
        if name.endswith(".weight") and ("_proj." in name or ".fc" in name)
        and "output_projection" not in name
    }  # fmt: skip
    kept, _ = network_of(made / "adapted")
    training, _ = network_of(made / "general")
    add_lora(training, 3, 7)
    training.load_state_dict(weights(made / "run" / "checkpoint_last.pt"))
    assert not torch.allclose(logits(kept), logits(network_of(made / "general")[0]), atol=1e-3)
    torch.testing.assert_close(logits(kept), logits(training), rtol=0, atol=1e-6)


def test_tied_weights_stay_tied(made):
    kept = weights(made / "adapted" / "model.pt")
    tied = [name for name in kept if "embed_tokens" in name or "output_projection" in name]
    assert len({kept[name].untyped_storage().data_ptr() for name in tied}) == 1
    network, _ = network_of(made / "general")
    add_lora(network, 3)
    assert network.encoder.embed_tokens.weight is network.decoder.output_projection.weight


def test_nothing_of_the_updates_is_left_in_the_settings(made):
    task = load_checkpoint(made / "adapted" / "model.pt")["cfg"]["task"]
    assert (task["lora_rank"], task["lora_alpha"], task["lora_layers"]) == (0, None, None)


def test_a_checkpoint_in_training_is_decoded_as_what_is_kept_of_it(made):
    """fairseq-generate and load_model_ensemble take it; nothing of LoRA is left to slow them."""
    hypotheses = []
    for path in (made / "run" / "checkpoint_last.pt", made / "adapted" / "model.pt"):
        done = run("fairseq-generate", made / "data", "--task", "sequence_distillation",
                   "--path", path, "--gen-subset", "test", "--beam", 2,
                   "--max-len-b", 5)  # fmt: skip
        assert done.status == 0, done.output
        hypotheses.append([row for row in done.output.splitlines() if row[:2] in ("H-", "P-")])
    assert len(hypotheses[0]) == 18 and hypotheses[0] == hypotheses[1]
    with quiet():
        (network,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
            [str(made / "run" / "checkpoint_last.pt")]
        )
    assert not any("lora" in name for name, _ in network.named_parameters())


def test_validation_decodes_with_the_updates(made, tmp_path):
    """What is logged in training is what the kept model gets."""
    done = adapt(made, tmp_path, *LORA, "--valid-beam", 2)
    assert done.status == 0, done.output
    *_, last = done.entries("valid")
    validated = run("fairseq-validate", made / "data", "--task", "sequence_distillation",
                    "--path", made / "adapted" / "model.pt", "--valid-beam", 2,
                    "--max-tokens", 250)  # fmt: skip
    assert validated.status == 0, validated.output
    assert f"chrf {float(last['valid_chrf']):g} " in validated.output, validated.output
    assert float(last["valid_chrf"]) > 0


def test_export_and_generation_take_the_kept_model(made, tmp_path):
    export(made / "adapted", tmp_path / "exported", "float32")
    source = write_text(tmp_path / "src", toy_lines(10, longest=4))
    texts = []
    for number, model in enumerate((made / "adapted", tmp_path / "exported")):
        generate([model], source, tmp_path / f"out{number}", beam=2)
        texts.append(read_text(tmp_path / f"out{number}"))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "start, flags",
    [
        ("adapted/model.pt", ("--lora-rank", 5)),
        ("run/checkpoint_last.pt", ()),
        ("run/checkpoint_last.pt", ("--lora-rank", 5)),
    ],
)
def test_the_next_training_starts_from_what_was_learnt(made, tmp_path, start, flags):
    """From the kept model and from a checkpoint of the training, with and without LoRA again."""
    done = train(
        made / "data", tmp_path, "--finetune-from-model", made / start, "--max-update", 1,
        "--lr", 0, "--stop-min-lr", -1, "--valid-beam", 0, *flags, task="domain_adaptation",
    )  # fmt: skip
    assert done.status == 0, done.output
    after = merged(weights(tmp_path / "checkpoint_last.pt"))
    for name, tensor in weights(made / "adapted" / "model.pt").items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


def test_a_checkpoint_of_another_scale_is_merged(made):
    network, _ = network_of(made / "general")
    add_lora(network, 3, alpha=3)
    read_any_checkpoint(network)
    network.load_state_dict(weights(made / "run" / "checkpoint_last.pt"))
    kept, _ = network_of(made / "adapted")
    torch.testing.assert_close(logits(network), logits(kept), rtol=0, atol=1e-12)
    assert network.encoder.layers[0].fc1.parametrizations.weight[0].lora_b.abs().sum() == 0


def test_half_precision_learns_updates(made, tmp_path):
    done = adapt(made, tmp_path, *LORA, "--fp16", "--fp16-no-flatten-grads")
    assert done.status == 0, done.output
    after = weights(tmp_path / "checkpoint_last.pt")
    learnt = [tensor for name, tensor in after.items() if "lora_b" in name]
    assert learnt and all(tensor.abs().sum() > 0 for tensor in learnt)
    keep_weights(tmp_path / "checkpoint_last.pt", made / "data", tmp_path / "kept")
    assert weights(tmp_path / "kept" / "model.pt").keys() == weights(
        made / "general" / "model.pt"
    ).keys()
