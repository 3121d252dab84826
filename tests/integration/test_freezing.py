"""--freeze under stock fairseq-train: what is frozen stays to the bit, the rest learns."""

import pytest

from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.models.patterns import GROUPS, choose
from tests.fixtures.fairseq_cli import train
from tests.fixtures.prepared import toy_prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Prepared folder `data`, and `general`, a model of two updates."""
    root = tmp_path_factory.mktemp("made")
    toy_prepared(root)
    trained = train(root / "data", root / "run", "--max-update", 2, "--lr", 0.01)
    assert trained.status == 0, trained.output
    keep_weights(root / "run" / "checkpoint_best.pt", root / "data", root / "general")
    return root


def adapt(made, out, *words):
    """Three updates of domain_adaptation from the general model."""
    return train(
        made / "data", out, "--finetune-from-model", made / "general" / "model.pt",
        "--max-update", 3, "--lr", 0.01, "--valid-beam", 0, *words, task="domain_adaptation",
    )  # fmt: skip


def changed(made, out):
    """Names of the weights that training changed, and of those that it did not."""
    before = load_checkpoint(made / "general" / "model.pt")["model"]
    after = load_checkpoint(out / "checkpoint_last.pt")["model"]
    assert before.keys() == after.keys()
    weights = {name for name in before if name.endswith((".weight", ".bias"))}
    moved = {name for name in weights if not before[name].equal(after[name])}
    return moved, weights - moved


def test_without_the_flag_every_weight_learns(made, tmp_path):
    done = adapt(made, tmp_path)
    assert done.status == 0, done.output
    moved, stayed = changed(made, tmp_path)
    # the bias of keys cancels out in attention's softmax; it moves by rounding errors, or not
    assert not {name for name in stayed if "k_proj.bias" not in name}


@pytest.mark.parametrize(
    "patterns, frozen",
    [
        ("encoder", "encoder.layer"),
        (r"encoder.*fc1\.weight$", "encoder.layers.0.fc1.weight"),
        ("embeddings", ("encoder.embed", "decoder.embed", "decoder.output_projection")),
        (r"^encoder\.embed,norms,ffn", ("encoder.embed", "decoder.embed", "decoder.output_proj")),
    ],
)
def test_frozen_weights_stay_to_the_bit_and_others_learn(made, tmp_path, patterns, frozen):
    done = adapt(made, tmp_path, "--freeze", patterns)
    assert done.status == 0, done.output
    moved, stayed = changed(made, tmp_path)
    expected = {name for name in moved | stayed if name.startswith(frozen)}
    if "norms" in patterns:
        expected |= {name for name in moved | stayed if "layer_norm" in name or ".fc" in name}
    assert expected and expected <= stayed
    assert not {name for name in stayed - expected if "k_proj.bias" not in name}


def test_the_log_says_how_many_learn_and_what_is_tied(made, tmp_path):
    done = adapt(made, tmp_path, "--freeze", r"^encoder\.embed_tokens")
    weights = load_checkpoint(made / "general" / "model.pt")["model"]
    embeddings = weights["encoder.embed_tokens.weight"].numel()
    total = embeddings + sum(
        weight.numel() for name, weight in weights.items()
        if name.startswith(("encoder.layer", "decoder.layer"))
    )  # fmt: skip
    assert f"{total - embeddings:,} of {total:,} parameters learn" in done.output
    assert f"(num. trained: {total - embeddings:,})" in done.output
    for name in ("decoder.embed_tokens.weight", "decoder.output_projection.weight"):
        assert f"{name} is frozen too, being tied to a frozen weight" in done.output


def test_frozen_weights_have_no_state_in_the_optimiser(made, tmp_path):
    adapt(made, tmp_path, "--freeze", "embeddings,encoder")
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")
    decoder = [name for name in state["model"] if name.startswith("decoder.layer")]
    assert len(state["last_optimizer_state"]["state"]) == len(decoder)


def test_half_precision_learns_what_is_not_frozen(made, tmp_path):
    done = adapt(made, tmp_path, "--freeze", "encoder", "--fp16", "--fp16-no-flatten-grads")
    assert done.status == 0, done.output
    before = load_checkpoint(made / "general" / "model.pt")["model"]
    after = load_checkpoint(tmp_path / "checkpoint_last.pt")["model"]
    moved = {name for name in before if not before[name].half().equal(after[name].half())}
    assert "decoder.layers.0.fc1.weight" in moved
    assert not [name for name in moved if name.startswith("encoder.layer")]


def test_training_goes_on_with_the_same_weights_frozen_and_no_others(made, tmp_path):
    flags = ("--freeze", "encoder", "--epoch-fraction", 0.25)
    assert adapt(made, tmp_path / "straight", *flags, "--max-update", 4).status == 0
    assert adapt(made, tmp_path / "broken", *flags, "--max-update", 2).status == 0
    refused = adapt(made, tmp_path / "broken", "--freeze", "decoder", "--max-update", 4)
    assert refused.status != 0
    assert "was trained with --freeze encoder, not decoder" in refused.output
    assert "or use another --save-dir" in refused.output
    assert adapt(made, tmp_path / "broken", *flags, "--max-update", 4).status == 0
    straight, broken = (
        load_checkpoint(tmp_path / name / "checkpoint_last.pt")["model"]
        for name in ("straight", "broken")
    )
    for name, weight in straight.items():
        assert weight.equal(broken[name]), name


@pytest.mark.parametrize(
    "patterns, message",
    [
        ("embeddings,adapters", "--freeze 'adapters' fits none of the weights; there are "
                                "encoder.embed_tokens.weight, encoder.layers.N.self_attn"),
        ("encoder,", "--freeze '' fits none of the weights"),
        ("(", "--freeze '(' is neither one of embeddings, encoder"),
        ("embeddings,encoder,decoder", "freezes every weight, so nothing could be learnt"),
    ],
)  # fmt: skip
def test_bad_patterns_are_refused_before_training(made, tmp_path, patterns, message):
    done = adapt(made, tmp_path, "--freeze", patterns)
    assert done.status != 0 and message in done.output, done.output
    assert "begin training" not in done.output


def test_every_word_chooses_its_part():
    names = [
        "encoder.embed_tokens.weight", "encoder.layernorm_embedding.weight",
        "encoder.layers.0.self_attn.q_proj.weight", "encoder.layers.10.fc1.bias",
        "encoder.layers.0.self_attn_layer_norm.weight", "encoder.layer_norm.bias",
        "decoder.embed_tokens.weight", "decoder.embed_positions.weight",
        "decoder.layers.0.encoder_attn.k_proj.weight", "decoder.layers.0.fc2.weight",
        "decoder.layers.0.encoder_attn_layer_norm.weight", "decoder.output_projection.weight",
    ]  # fmt: skip
    places = {
        "embeddings": {0, 1, 6, 7},
        "encoder": {2, 3, 4, 5},
        "decoder": {8, 9, 10},
        "output": {11},
        "attention": {2, 8},
        "ffn": {3, 9},
        "norms": {1, 4, 5, 10},
    }
    assert places.keys() == GROUPS.keys()
    for word, expected in places.items():
        assert choose(word, names, "--freeze") == [names[number] for number in sorted(expected)]
    assert choose(r"layers\.1\d*\., ffn", names, "--freeze") == [names[3], names[9]]
