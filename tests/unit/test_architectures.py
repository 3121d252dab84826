"""The registered architectures: shapes, a user's own flags, parameter counts, names in scripts."""

import re
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq import options
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

import fairseq_plugins  # noqa: F401  registers the architectures
from data_prep.model_sizes import PREFIX, SIZES, parameter_count

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = [PREFIX + name for name in SIZES]


def dictionary(size):
    made = Dictionary()
    for number in range(size - len(made)):
        made.add_symbol(f"piece{number}")
    assert len(made) == size
    return made


@pytest.fixture(scope="module")
def task():
    shared = dictionary(100)
    return SimpleNamespace(source_dictionary=shared, target_dictionary=shared)


def build(arch, task, **flags):
    """The network of an architecture without memory for its weights, and its settings."""
    args = Namespace(**flags)
    ARCH_CONFIG_REGISTRY[arch](args)
    with torch.device("meta"):
        return ARCH_MODEL_REGISTRY[arch].build_model(args, task), args


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_parameters_are_counted_as_built(arch, task):
    network, _ = build(arch, task)
    counted = parameter_count(arch, 100)
    assert counted["parameters"] == sum(weight.numel() for weight in network.parameters())
    assert counted["embedding_parameters"] == network.encoder.embed_tokens.weight.numel()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_embeddings_are_one_matrix_and_layers_are_pre_norm(arch, task):
    network, _ = build(arch, task)
    embedding = network.encoder.embed_tokens.weight
    assert network.decoder.embed_tokens.weight is embedding
    assert network.decoder.output_projection.weight is embedding
    for layer in [*network.encoder.layers, *network.decoder.layers]:
        assert layer.normalize_before
    assert network.encoder.layer_norm is not None and network.decoder.layer_norm is not None


@pytest.mark.parametrize(
    "arch, shape",
    [
        ("dad_large", (6, 6, 512, 2048, 8)),
        ("dad_medium", (3, 3, 512, 2048, 8)),
        ("dad_small", (3, 3, 256, 1024, 8)),
        ("dad_tiny", (1, 1, 256, 1024, 8)),
        ("dad_tiny_6_1", (6, 1, 256, 1024, 8)),
        ("dad_small_12_1", (12, 1, 256, 1024, 8)),
        ("dad_l2_w128", (2, 2, 128, 512, 2)),
        ("dad_l12_w768", (12, 12, 768, 3072, 12)),
    ],
)
def test_shapes_are_those_of_the_papers(arch, shape, task):
    network, _ = build(arch, task)
    for part in (network.encoder, network.decoder):
        layer = part.layers[0]
        found = (layer.embed_dim, layer.fc1.out_features, layer.self_attn.num_heads)
        assert found == shape[2:]
    assert (len(network.encoder.layers), len(network.decoder.layers)) == shape[:2]


def test_the_grid_has_every_depth_and_width():
    grid = [size for name, size in SIZES.items() if re.fullmatch(r"l\d+_w\d+", name)]
    assert len(set(grid)) == 24
    for size in grid:
        assert size.heads * 64 == size.width and size.ffn == 4 * size.width


@pytest.mark.parametrize(
    "flags",
    [
        {"encoder_layers": 4},
        {"decoder_layers": 2},
        {"encoder_attention_heads": 4},
        {"decoder_attention_heads": 4},
        {"encoder_ffn_embed_dim": 640},
        {"decoder_ffn_embed_dim": 640},
        {"encoder_embed_dim": 128},  # the decoder follows: the embeddings are shared
    ],
)
def test_a_flag_of_the_user_wins_over_the_shape(flags, task):
    network, args = build("dad_small", task, **flags)
    for name, value in flags.items():
        assert getattr(args, name) == value
    ours = sum(weight.numel() for weight in network.parameters())
    plain = build("dad_small", task)[0]
    if "heads" not in next(iter(flags)):
        assert ours != sum(weight.numel() for weight in plain.parameters())


def test_the_command_line_wins_over_the_shape(tmp_path):
    command = [str(tmp_path), "--arch", "dad_small", "--encoder-layers", "4"]
    args = options.parse_args_and_arch(options.get_training_parser(), command)
    assert (args.encoder_layers, args.decoder_layers, args.encoder_embed_dim) == (4, 3, 256)
    assert args.share_all_embeddings and args.encoder_normalize_before


@pytest.mark.parametrize("arch", ["transformer", "small", "dad_huge"])
def test_an_unknown_architecture_is_refused_with_the_list(arch):
    with pytest.raises(ValueError, match=f"'{arch}' is unknown; there are dad_large"):
        parameter_count(arch, 100)


# -- the recipes know the same sizes ---------------------------------------------------------


def check_size(name):
    return subprocess.run(
        ["bash", "-c", f"source '{ROOT}/recipes/command_line.sh'; check_size --size '{name}'"],
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_recipes_accept_exactly_the_registered_sizes():
    script = f"source '{ROOT}/recipes/command_line.sh'; printf '%s\\n' \"${{model_sizes[@]}}\""
    listed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == list(SIZES)
    assert check_size("tiny_6_1").returncode == 0
    for name in ("huge", "", "l2_w", "*", "small "):
        refused = check_size(name)
        assert refused.returncode != 0
        assert f"--size '{name}' is unknown; there are large, medium" in refused.stderr


def test_the_table_in_the_help_of_train_sh_is_true():
    done = subprocess.run(
        ["bash", ROOT / "recipes" / "stages" / "train.sh", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = re.findall(
        r"^  (\w+) +(\d+) \+ (\d+) +(\d+) +(\d+) +(\d+) +([\d.]+) M +([\d.]+) M$", done.stdout, re.M
    )
    assert [row[0] for row in rows] == list(SIZES)
    for name, *shape, parameters, embeddings in rows:
        assert tuple(map(int, shape)) == SIZES[name]
        counted = parameter_count(PREFIX + name, 30_000)
        assert parameters == f"{counted['parameters'] / 1e6:.1f}"
        assert embeddings == f"{counted['embedding_parameters'] / 1e6:.1f}"
