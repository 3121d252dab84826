"""dad-keep-weights and dad-export: what is kept of a model, and that it still is the model."""

import json
import shutil
import sys

import ctranslate2
import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils

from data_prep.files import sha256
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.checkpoints import load_checkpoint, vocabulary_of
from fairseq_plugins.export import conversion, weights
from fairseq_plugins.export import export as export_module
from fairseq_plugins.export.export import export
from fairseq_plugins.export.weights import count_parameters, keep_weights
from fairseq_plugins.generation.generate import generate
from tests.fixtures.models import (
    read_text,
    toy_checkpoint,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a vocabulary, a checkpoint and the MODEL folder made from it."""
    folder = tmp_path_factory.mktemp("export")
    toy_vocabulary(folder / "vocabulary")
    toy_model(folder / "model", folder / "vocabulary")
    return folder


def strings(value):
    """Every string in a nest of containers, Namespaces too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings(inner)
    elif hasattr(value, "__dict__"):
        yield from strings(vars(value))


# -- weights ---------------------------------------------------------------------------------


def test_the_weights_are_those_of_the_checkpoint(place):
    ours = load_checkpoint(place / "model" / "model.pt")
    theirs = load_checkpoint(place / "model-checkpoint.pt")
    assert list(ours["model"]) == list(theirs["model"])
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor)
    assert vocabulary_of(ours) == read_vocabulary(place / "vocabulary").files


def test_nothing_else_of_the_run_is_kept(place):
    kept = load_checkpoint(place / "model" / "model.pt")
    assert "last_optimizer_state" not in kept
    assert "previous_training_time" not in kept["extra_state"]
    assert kept["optimizer_history"][-1]["num_updates"] == 0
    kept.pop("model")
    assert [text for text in strings(kept) if "/" in text] == ["/tmp/plasma"] * 2
    assert (place / "model" / "model.pt").stat().st_size < (
        place / "model-checkpoint.pt"
    ).stat().st_size


def test_the_same_training_elsewhere_gives_the_same_bytes(place, tmp_path):
    elsewhere = tmp_path / "another" / "place"
    elsewhere.mkdir(parents=True)
    shutil.copytree(place / "vocabulary", elsewhere / "vocabulary")
    checkpoint = toy_checkpoint(
        elsewhere / "interrupted.pt", elsewhere / "vocabulary",
        flags=["--finetune-from-model", str(place / "model" / "model.pt"),
               "--tensorboard-logdir", str(tmp_path), "--mixture", f"{elsewhere / 'vocabulary'}=2"],
        extra_state={"previous_training_time": 99.0, "train_iterator": {"epoch": 8}},
    )  # fmt: skip
    keep_weights(checkpoint, elsewhere / "vocabulary", elsewhere / "kept")
    assert (place / "model" / "model.pt").read_bytes() == (
        elsewhere / "kept" / "model.pt"
    ).read_bytes()


def test_paths_in_settings_that_we_do_not_know_are_left_out(place, tmp_path):
    kept = []
    for name in ("here", "there"):
        checkpoint = toy_checkpoint(
            tmp_path / f"{name}.pt", place / "vocabulary",
            flags=["--eval-bleu-args", f'{{"log": "{tmp_path}/{name}"}}'],
        )  # fmt: skip
        keep_weights(checkpoint, place / "vocabulary", tmp_path / name)
        kept.append((tmp_path / name / "model.pt").read_bytes())
    assert kept[0] == kept[1]
    assert str(tmp_path).encode() not in kept[0]


def test_bytes_do_not_depend_on_order_or_identity_in_the_checkpoint(place, tmp_path):
    state = load_checkpoint(place / "model-checkpoint.pt")
    state["cfg"] = dict(reversed(list(state["cfg"].items())))
    state["task_state"]["vocabulary"] = json.loads(json.dumps(state["task_state"]["vocabulary"]))
    shuffled = tmp_path / "shuffled.pt"
    torch.save(dict(reversed(list(state.items()))), shuffled)
    keep_weights(shuffled, place / "vocabulary", tmp_path / "kept")
    assert sha256(tmp_path / "kept" / "model.pt") == sha256(place / "model" / "model.pt")


def test_other_weights_give_other_bytes(place, tmp_path):
    toy_model(tmp_path / "other", place / "vocabulary", seed=2)
    assert sha256(tmp_path / "other" / "model.pt") != sha256(place / "model" / "model.pt")


def test_tied_embeddings_stay_tied_and_count_once(place):
    tensors = load_checkpoint(place / "model" / "model.pt")["model"]
    tied = [name for name in tensors if "embed_tokens" in name or "output_projection" in name]
    assert len(tied) == 3
    assert len({tensors[name].untyped_storage().data_ptr() for name in tied}) == 1
    counts = count_parameters(tensors)
    assert counts["embedding_parameters"] == tensors[tied[0]].numel()
    task_free = sum(
        tensor.numel()
        for name, tensor in tensors.items()
        if "layer" in name  # layers and their norms: all that is not an embedding
    )
    assert counts["parameters"] == task_free + counts["embedding_parameters"]


def test_fairseq_loads_the_kept_model_from_its_own_folder(place):
    path = str(place / "model" / "model.pt")
    (network,), cfg, task = checkpoint_utils.load_model_ensemble_and_task(
        [path], arg_overrides={"data": str(place / "model")}
    )
    assert (task.cfg.source_lang, task.cfg.target_lang) == ("de", "en")
    theirs = load_checkpoint(place / "model-checkpoint.pt")["model"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, theirs[name])


def test_another_vocabulary_is_refused_and_nothing_is_left(place, tmp_path):
    toy_vocabulary(tmp_path / "other", seed=50)
    with pytest.raises(ValueError, match="trained with another vocabulary"):
        keep_weights(place / "model-checkpoint.pt", tmp_path / "other", tmp_path / "kept")
    stock = toy_checkpoint(
        tmp_path / "stock.pt", place / "vocabulary", task="translation", task_state={}
    )
    with pytest.raises(ValueError, match="carries no vocabulary fingerprint"):
        keep_weights(stock, place / "vocabulary", tmp_path / "kept")
    assert not list(tmp_path.glob("kept*"))
    keep_weights(
        stock, place / "vocabulary", tmp_path / "kept", allow_unknown_vocabulary=True
    )
    # whoever vouched once need not do it again
    record = generate(
        [tmp_path / "kept"], write_text(tmp_path / "src", ["ba"]), tmp_path / "out"
    )
    assert record["counts"]["lines"] == 1


def test_bad_places_are_refused(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint .*none.pt is missing"):
        keep_weights(tmp_path / "none.pt", place / "vocabulary", tmp_path / "kept")
    (tmp_path / "text.pt").write_text("ba be bi")
    with pytest.raises(ValueError, match="text.pt"):
        keep_weights(tmp_path / "text.pt", place / "vocabulary", tmp_path / "kept")
    cut = tmp_path / "cut.pt"
    cut.write_bytes((place / "model-checkpoint.pt").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.pt"):
        keep_weights(cut, place / "vocabulary", tmp_path / "kept")
    with pytest.raises(FileExistsError, match="model exists"):
        keep_weights(place / "model-checkpoint.pt", place / "vocabulary", place / "model")
    assert not list(tmp_path.glob("kept*"))


def test_the_command_says_what_it_kept(place, tmp_path, monkeypatch, capsys):
    words = ["dad-keep-weights", "--checkpoint", place / "model-checkpoint.pt",
             "--vocabulary", place / "vocabulary", "--out", tmp_path / "kept"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    for status, said in ((None, "parameters ("), (1, "dad-keep-weights: error: ")):
        with pytest.raises(SystemExit) as stopped:
            weights.main()
        assert stopped.value.code == status
        assert said in capsys.readouterr().err
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text())
    assert manifest["counts"]["updates"] == 7


# -- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compute_type", ["float32", "float16", "int8"])
def test_an_exported_model_translates_in_the_type_it_was_saved_with(
    compute_type, place, tmp_path
):
    counts = export(place / "model", tmp_path / "exported", compute_type)
    lines = toy_lines(40)
    source = write_text(tmp_path / "src", lines)
    record = generate([tmp_path / "exported"], source, tmp_path / "out", beam=1)
    assert len(read_text(tmp_path / "out")) == 40
    assert record["settings"]["backend"] == "ctranslate2"
    generate([place / "model"], source, tmp_path / "float32", beam=1)
    same = sum(
        one == other
        for one, other in zip(
            read_text(tmp_path / "out"), read_text(tmp_path / "float32"), strict=True
        )
    )
    assert same >= {"float32": 40, "float16": 30, "int8": 10}[compute_type]
    manifest = json.loads((tmp_path / "exported" / "manifest.json").read_text())
    assert manifest["settings"]["compute_type"] == compute_type
    assert manifest["settings"]["positions"] == {"source": 1024, "target": 1024}
    assert manifest["counts"] == counts
    expected = count_parameters(load_checkpoint(place / "model" / "model.pt")["model"])
    assert counts["parameters"] == expected["parameters"]
    assert read_vocabulary(tmp_path / "exported").files == read_vocabulary(place / "model").files


def test_int8_is_smaller_than_float32(place, tmp_path):
    sizes = [
        export(place / "model", tmp_path / kind, kind)["bytes"] for kind in ("int8", "float32")
    ]
    assert sizes[0] < sizes[1]


def test_export_gives_the_same_bytes_twice(place, tmp_path):
    for name in ("a", "b"):
        export(place / "model", tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "model.bin" in files
    for name in set(files) - {"manifest.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no-cross-attention"], "trained with --no-cross-attention"),
        (["--no-token-positional-embeddings"], "no-token-positional-embeddings"),
        (["--activation-fn", "tanh"], "activation-fn tanh"),
        (["--adaptive-softmax-cutoff", "100"], "trained with --adaptive-softmax-cutoff"),
    ],
)
def test_what_ctranslate2_cannot_represent_is_refused(flags, message, place, tmp_path):
    toy_model(tmp_path / "model", place / "vocabulary", flags=flags)
    with pytest.raises(ValueError, match=f"{message}.*decode it with --backend fairseq"):
        export(tmp_path / "model", tmp_path / "exported")
    assert not list(tmp_path.glob("exported*"))


def test_generation_falls_back_to_fairseq_for_such_a_model(place, tmp_path):
    toy_model(tmp_path / "model", place / "vocabulary", flags=["--no-cross-attention"])
    source = write_text(tmp_path / "src", toy_lines(5))
    record = generate([tmp_path / "model"], source, tmp_path / "out")
    assert record["settings"]["backend"] == "fairseq"
    assert len(read_text(tmp_path / "out")) == 5


def test_a_conversion_that_changes_scores_is_refused(place, tmp_path, monkeypatch):
    right = conversion._log_probs
    monkeypatch.setattr(conversion, "_log_probs", lambda *args: right(*args) + 0.01)
    with pytest.raises(ValueError, match="other scores than fairseq"):
        export(place / "model", tmp_path / "exported")
    assert not list(tmp_path.glob("exported*"))


def test_scores_are_compared_on_the_whole_model(place, tmp_path):
    exported = tmp_path / "exported"
    export(place / "model", exported, "float32")
    translator = ctranslate2.Translator(str(exported))
    (scored,) = translator.score_batch([["▁ba"]], [["▁be"]])
    assert len(scored.log_probs) == 2 and np.all(np.array(scored.log_probs) < 0)


def test_exporting_an_exported_model_or_nothing_is_refused(place, tmp_path):
    export(place / "model", tmp_path / "exported")
    with pytest.raises(ValueError, match="is an exported model already"):
        export(tmp_path / "exported", tmp_path / "again")
    with pytest.raises(FileExistsError, match="exported exists"):
        export(place / "model", tmp_path / "exported")
    with pytest.raises(FileNotFoundError, match="model folder .*none is missing"):
        export(tmp_path / "none", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_exported_folder_with_another_vocabulary_is_refused(place, tmp_path):
    exported = tmp_path / "exported"
    export(place / "model", exported)
    (exported / "subwords.model").write_bytes(b"")
    source = write_text(tmp_path / "src", ["ba"])
    with pytest.raises(ValueError, match="subwords.model is not the file"):
        generate([exported], source, tmp_path / "out")
    with pytest.raises(ValueError, match="which fairseq cannot read"):
        shutil.copyfile(place / "model" / "subwords.model", exported / "subwords.model")
        generate([exported], source, tmp_path / "out", backend="fairseq")
    with pytest.raises(ValueError, match="CTranslate2 has no ensembles"):
        generate([place / "model", exported], source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_kill_between_writing_and_renaming_leaves_no_exported_folder(
    place, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def fatal(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(conversion, "compare", fatal)
        export(place / "model", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    export(place / "model", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.bin").exists()


def test_the_command_says_size_and_type(place, tmp_path, monkeypatch, capsys):
    words = ["dad-export", "--model", place / "model", "--out", tmp_path / "exported"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as stopped:
        export_module.main()
    assert not stopped.value.code
    assert "int8, " in capsys.readouterr().err
