"""Models of the registered architectures under fairseq-train, dad-export and dad-generate."""

import pytest

from data_prep.model_sizes import parameter_count
from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export.export import export
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.generation.generate import generate
from tests.fixtures.fairseq_cli import run
from tests.fixtures.models import read_text, toy_lines, write_text
from tests.fixtures.prepared import toy_prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_prepared(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("arch", ["dad_tiny_6_1", "dad_l2_w128", "dad_miniature"])
def test_a_model_is_trained_exported_and_decodes_the_same(data, tmp_path, arch):
    done = run(
        "fairseq-train", data, "--task", "sequence_distillation", "--arch", arch,
        "--criterion", "label_smoothed_cross_entropy", "--optimizer", "adam", "--lr", 1e-3,
        "--max-update", 1, "--max-tokens", 1000, "--valid-beam", 0, "--save-dir", tmp_path / "run",
        "--num-workers", 0,
    )  # fmt: skip
    assert done.status == 0, done.output
    kept = keep_weights(tmp_path / "run" / "checkpoint_best.pt", data, tmp_path / "model")
    weights = load_checkpoint(tmp_path / "model" / "model.pt")["model"]
    pieces = weights["encoder.embed_tokens.weight"].size(0)
    counted = parameter_count(arch, pieces)
    assert kept["embedding_parameters"] == counted["embedding_parameters"]
    assert counted["parameters"] == sum(
        weight.numel() for name, weight in weights.items()
        if name.endswith(("weight", "bias")) and "decoder.embed" not in name
        and "output_projection" not in name
    )  # fmt: skip
    export(tmp_path / "model", tmp_path / "exported", "float32")
    source = write_text(tmp_path / "src", toy_lines(6, longest=3))
    for name, model in (("fairseq", "model"), ("ctranslate2", "exported")):
        generate([tmp_path / model], source, tmp_path / name, backend=name, beam=1)
    assert read_text(tmp_path / "fairseq") == read_text(tmp_path / "ctranslate2")
