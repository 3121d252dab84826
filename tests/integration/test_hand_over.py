"""dad-hand-over: models and trainings from elsewhere, which are checked and then are ours."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
import torch

from data_prep.files import sha256
from data_prep.manifest import read_manifest
from data_prep.vocabulary import copy_vocabulary, read_vocabulary
from fairseq_plugins.checkpoints import load_checkpoint, vocabulary_of
from fairseq_plugins.export import hand_over as module
from fairseq_plugins.export.hand_over import hand_over, hand_over_training
from fairseq_plugins.export.safe_weights import write_safetensors
from fairseq_plugins.export.weights import keep_weights
from fairseq_plugins.generation.generate import generate
from tests.fixtures.fairseq_cli import TINY, run
from tests.fixtures.models import read_text, toy_checkpoint, toy_vocabulary
from tests.fixtures.prepared import toy_prepared
from tests.fixtures.toy_chain import ROOT
from tests.fixtures.warm import warm_commands

SIZE = "miniature"
SHAPE = (
    "--arch", "dad_miniature", "--encoder-embed-dim", "96", "--decoder-embed-dim", "96",
    "--encoder-ffn-embed-dim", "384", "--decoder-ffn-embed-dim", "384",
    "--encoder-attention-heads", "4", "--decoder-attention-heads", "4",
)  # fmt: skip
OPTIMISING = ("--lr", "0.01", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "3")
BEST = ("--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric")


def words(data, save_dir, *more, task="sequence_distillation"):
    """Of a fairseq-train; TINY has a shape of its own, the last one counts."""
    return [*map(str, (data, "--task", task, "--save-dir", save_dir, *TINY, *SHAPE, *OPTIMISING,
                       *more))]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with ``data``, ``data-vocabulary`` and ``ours.pt``, a checkpoint with our task."""
    root = tmp_path_factory.mktemp("handed")
    toy_checkpoint(root / "ours.pt", toy_prepared(root), flags=SHAPE)
    return root


@pytest.fixture(scope="module")
def stock(made):
    """Folder of checkpoints of a training of plain fairseq."""
    flags = words(made / "data", made / "stock", "--max-epoch", 16, task="translation")
    done = run("fairseq-train", *flags)
    assert done.status == 0, done.output
    return made / "stock"


def refused(message, function, *args, **settings):
    with pytest.raises((ValueError, OSError), match=message):
        function(*args, **settings)
    return True


# -- a model -------------------------------------------------------------------------------------


def test_a_model_of_plain_fairseq_translates_as_before_it_was_handed_over(made, stock, tmp_path):
    theirs = stock / "checkpoint_best.pt"
    hand_over(theirs, made / "data", tmp_path / "teacher", size=SIZE, allow_unknown_vocabulary=True)
    decoded = run(
        "fairseq-generate", made / "data", "--path", theirs, "--gen-subset", "test", "--beam", 4,
        "--max-len-a", 0, "--max-len-b", 20, "--unkpen", 1000, "--required-batch-size-multiple", 1,
    )  # fmt: skip
    subwords = read_vocabulary(made / "data").subwords("en")
    before = {}
    for line in decoded.output.splitlines():
        if line.startswith("H-"):
            number, _, pieces = line.split("\t")
            before[int(number[2:])] = subwords.decode(pieces.split())
    after = tmp_path / "after.en"
    generate([tmp_path / "teacher"], made / "data" / "test.de", after, backend="fairseq", beam=4,
             max_length=20, calibration="off", workers=1)  # fmt: skip
    assert len(set(before.values())) > 1  # it does read its source
    assert [before[number] for number in range(9)] == read_text(after)


@pytest.mark.parametrize("kind", ["checkpoint", "model folder", "safetensors"])
def test_the_folder_is_what_our_own_training_would_have_left_and_always_the_same(
    made, tmp_path, kind
):
    keep_weights(made / "ours.pt", made / "data", tmp_path / "model")
    place = {"checkpoint": made / "ours.pt", "model folder": tmp_path / "model",
             "safetensors": tmp_path / "shipped"}[kind]  # fmt: skip
    if kind == "safetensors":
        place.mkdir()
        write_safetensors(
            place / "model.safetensors", load_checkpoint(tmp_path / "model" / "model.pt")
        )
    hand_over(place, made / "data", tmp_path / "teacher", size=SIZE)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {path.name for path in (tmp_path / "teacher").iterdir()} == names
    for name in names - {"manifest.json"}:
        assert (tmp_path / "teacher" / name).read_bytes() == (
            tmp_path / "model" / name
        ).read_bytes()
    (taken,) = read_manifest(tmp_path / "teacher")["inputs"].items()
    assert taken[0].startswith(str(place)) and taken[1] == sha256(taken[0])


def changed(made, tmp_path, change):
    """A checkpoint of ours with something changed in it."""
    state = load_checkpoint(made / "ours.pt")
    state["model"] = type(state["model"])((k, v.clone()) for k, v in state["model"].items())
    change(state)
    torch.save(state, tmp_path / "changed.pt")
    return tmp_path / "changed.pt"


def without_fingerprint(state):
    state["task_state"] = {}


def reverse(state):
    state["cfg"]["task"].update(source_lang="en", target_lang="de")


def with_nan(state):
    state["model"]["encoder.layers.0.fc1.weight"][3, 5] = float("nan")


def wider(state):
    state["model"]["decoder.layers.0.fc1.bias"] = torch.zeros(500)


def more(state):
    state["model"]["encoder.layernorm_embedding.weight"] = torch.zeros(96)


def fewer(state):
    del state["model"]["encoder.layer_norm.weight"]


def runs_code(state):
    state["extra_state"]["where"] = stat.filemode


@pytest.mark.parametrize(
    "change, message",
    [
        (without_fingerprint, "carries no vocabulary fingerprint.*--allow-unknown-vocabulary"),
        (reverse, "changed.pt translates en → de, not de → en"),
        (with_nan, "NaN or infinity in encoder.layers.0.fc1.weight"),
        (wider, "decoder.layers.0.fc1.bias is 500, not 384"),
        (more, "it has encoder.layernorm_embedding.weight; "),
        (fewer, "it lacks encoder.layer_norm.weight; "),
        (runs_code, "needs the type _?stat.filemode.*--trust-checkpoint"),
        (lambda state: state.pop("model"), "not a fairseq checkpoint: it has no entry 'model'"),
    ],
)
def test_a_model_that_is_not_as_it_should_be_is_refused(made, tmp_path, change, message):
    place = changed(made, tmp_path, change)
    assert refused(message, hand_over, place, made / "data", tmp_path / "out", size=SIZE)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--encoder-attention-heads", "8"],
         "encoder_attention_heads is 8, not 4; it cannot be trained on as such"),
        (["--activation-fn", "gelu"], "activation_fn is gelu, not relu"),
        (["--decoder-layers", "2"], "decoder_layers is 2, not 1"),
        (["--arch", "dad_tiny", "--encoder-embed-dim", "256", "--decoder-embed-dim", "256",
          "--encoder-ffn-embed-dim", "1024", "--decoder-ffn-embed-dim", "1024",
          "--encoder-attention-heads", "8", "--decoder-attention-heads", "8"],
         "encoder_embed_dim is 256, not 96; it has the shape of --size tiny, ask for that"),
    ],
)  # fmt: skip
def test_a_network_of_another_shape_is_refused_only_where_a_size_is_asked_for(
    made, tmp_path, flags, message
):
    place = toy_checkpoint(tmp_path / "theirs.pt", made / "data", flags=[*SHAPE, *flags])
    assert refused(message, hand_over, place, made / "data", tmp_path / "out", size=SIZE)
    assert hand_over(place, made / "data", tmp_path / "out")["checkpoints"] == 1


def test_weights_that_are_not_tied_do_not_pass_for_tied_ones(made, tmp_path):
    """Of the same names and shapes: fairseq would load three matrices over each other."""
    def untie(state):
        state["cfg"]["model"].share_all_embeddings = False

    place = changed(made, tmp_path, untie)
    message = "share_all_embeddings is False, not True"
    assert refused(message, hand_over, place, made / "data", tmp_path / "out", size=SIZE)


def test_another_vocabulary_is_refused_wherever_it_shows(made, tmp_path, capsys):
    other = toy_vocabulary(tmp_path / "other", size=300, seed=50).folder
    larger = toy_vocabulary(tmp_path / "larger", size=310, seed=50).folder
    message = "another vocabulary than that of .*subwords.model"
    assert refused(message, hand_over, made / "ours.pt", other, tmp_path / "out")
    keep_weights(made / "ours.pt", made / "data", tmp_path / "model")
    message = "holds another vocabulary than .*--from-folder"
    assert refused(message, hand_over, tmp_path / "model", other, tmp_path / "out")

    # without a fingerprint: the number of pieces, a dictionary beside it, that of its data
    place = changed(made, tmp_path, without_fingerprint)
    allowed = {"allow_unknown_vocabulary": True}
    message = r"has \d+ embeddings for de .*makes \d+"
    assert refused(message, hand_over, place, larger, tmp_path / "out", **allowed)
    message = r"data/dict.de.txt, line \d+: "
    assert refused(message, hand_over, place, other, tmp_path / "out", **allowed)

    def elsewhere(state):
        without_fingerprint(state)
        state["cfg"]["task"]["data"] = "/nowhere"

    place = changed(made, tmp_path, elsewhere)
    shutil.copyfile(made / "data" / "dict.en.txt", tmp_path / "dict.en.txt")
    message = f"{tmp_path}/dict.en.txt, line "
    assert refused(message, hand_over, place, other, tmp_path / "out", **allowed)
    with open(tmp_path / "dict.en.txt", "a") as file:
        file.write("more 1\n")
    message = r"dict.en.txt has \d+ pieces, "
    assert refused(message, hand_over, place, made / "data", tmp_path / "out", **allowed)
    assert "only the number" not in capsys.readouterr().err
    (tmp_path / "dict.en.txt").unlink()
    hand_over(place, made / "data", tmp_path / "out", **allowed)
    assert "so only the number of its pieces was compared" in capsys.readouterr().err
    ours = read_vocabulary(made / "data").files
    assert vocabulary_of(load_checkpoint(tmp_path / "out" / "model.pt")) == ours


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "holds no model.pt, so it is no model folder"),
        (["checkpoint1.pt", "checkpoint_best.pt"], "checkpoints: checkpoint1.pt, checkpoint_best"),
        (["model.bin"], "as CTranslate2 stores it .* the one with model.pt"),
        (None, "is missing; name a model folder or a fairseq checkpoint"),
    ],
)
def test_a_place_without_a_model_says_what_to_name(made, tmp_path, names, message):
    place = tmp_path / "place"
    if names is not None:
        place.mkdir()
        for name in names:
            (place / name).touch()
    assert refused(message, hand_over, place, made / "data", tmp_path / "out")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_file_cut_short_is_refused(made, tmp_path, share):
    whole = (made / "ours.pt").read_bytes()
    place = tmp_path / "cut.pt"
    place.write_bytes(whole[: int(len(whole) * share)])
    message = "cut.pt is damaged .*copy or make it again"
    assert refused(message, hand_over, place, made / "data", tmp_path / "out")


def test_a_vocabulary_is_taken_out_of_a_model_folder_as_it_is(made, tmp_path):
    keep_weights(made / "ours.pt", made / "data", tmp_path / "model")
    copy_vocabulary("de", "en", tmp_path / "vocabulary", tmp_path / "model")
    for path in (made / "data-vocabulary").iterdir():
        if path.name != "manifest.json":
            assert (tmp_path / "vocabulary" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "vocabulary" / "model.pt").exists()
    for langs in (("en", "de"), ("de", "fr")):
        assert refused("is for de → en, not for ", copy_vocabulary, *langs, tmp_path / "x",
                       tmp_path / "model")  # fmt: skip
    (tmp_path / "model" / "dict.en.txt").write_text("a 1\n")
    assert refused("dict.en.txt is not the file", copy_vocabulary, "de", "en", tmp_path / "x",
                   tmp_path / "model")  # fmt: skip


# -- a training ----------------------------------------------------------------------------------


def continued(made, out, checkpoint, *more):
    """A training that goes on from a checkpoint, as ``Finished``."""
    flags = words(made / "data", out, *BEST, *more)
    hand_over_training(checkpoint, out / "checkpoint_last.pt", flags)
    return run("fairseq-train", *flags)


def test_a_training_that_was_handed_over_goes_on_as_it_would_have_where_it_was(made, tmp_path):
    """Update 5 lies within an epoch: optimiser, schedule and place in the data are all needed."""
    flags = words(made / "data", tmp_path / "there", *BEST)
    assert run("fairseq-train", *flags, "--max-update", 5).status == 0
    begun = tmp_path / "begun.pt"
    shutil.copyfile(tmp_path / "there" / "checkpoint_last.pt", begun)
    assert load_checkpoint(begun)["extra_state"]["train_iterator"]["iterations_in_epoch"] > 0
    assert run("fairseq-train", *flags, "--max-update", 9).status == 0
    done = continued(made, tmp_path / "here", begun, "--max-update", 9)
    assert done.status == 0, done.output
    assert [entry["num_updates"] for entry in done.entries("train_inner")] == [6, 7, 8, 9]
    models = [
        keep(tmp_path / name / "checkpoint_last.pt", made / "data", tmp_path / f"{name}-model")
        for name in ("there", "here")
    ]
    assert models[0] == models[1]
    # which was the best so far is another folder's, so here the first validation is
    assert (tmp_path / "here" / "checkpoint_best.pt").exists()


def keep(checkpoint, data, out):
    """Bytes of the model that a checkpoint becomes."""
    keep_weights(checkpoint, data, out)
    return (out / "model.pt").read_bytes()


def test_a_training_of_plain_fairseq_goes_on_as_ours(made, stock, tmp_path):
    """Its best score was a loss, and its place in the data may lie behind the end of ours."""
    state = load_checkpoint(stock / "checkpoint_last.pt")
    updates = state["optimizer_history"][-1]["num_updates"]
    state["extra_state"]["train_iterator"]["iterations_in_epoch"] = 99
    state["extra_state"]["best"] = 1000.0
    torch.save(state, tmp_path / "stock.pt")
    done = continued(made, tmp_path / "out", tmp_path / "stock.pt", "--max-update", updates + 2,
                     "--allow-unknown-vocabulary")  # fmt: skip
    assert done.status == 0, done.output
    steps = done.entries("train_inner")
    assert [entry["num_updates"] for entry in steps] == [updates + 1, updates + 2]
    # the rate has gone down from where the warm-up ended, with the root of the updates
    assert steps[-1]["lr"] == pytest.approx(0.01 * (3 / (updates + 2)) ** 0.5, rel=0.01)
    best = load_checkpoint(tmp_path / "out" / "checkpoint_best.pt")
    assert 0 <= best["extra_state"]["best"] <= 100
    assert vocabulary_of(best) == read_vocabulary(made / "data").files


@pytest.mark.parametrize(
    "change, flags, message",
    [
        (lambda state: state.pop("last_optimizer_state"), [], "without the state of an optimiser"),
        (lambda state: state["extra_state"].pop("train_iterator"), [], "without the state of an"),
        (without_fingerprint, [], "carries no vocabulary fingerprint"),
        (reverse, [], "translates en → de"),
        (with_nan, [], "NaN or infinity"),
        (fewer, [], "is no network of --arch dad_miniature: it lacks"),
        (None, ["--decoder-layers", "2"], "decoder_layers is 1, not 2"),
        (None, ["--criterion", "word_distillation"],
         "the criterion LabelSmoothed.*would go on with WordDistillationCriterion; train on with"),
        (None, ["--optimizer", "nag"], "optimiser FairseqAdam, and would go on with FairseqNAG"),
        (None, ["--fp16"], "FairseqAdam.*FP16Optimizer; with --precision fp16"),
        (None, ["--max-update", "7"], "has 7 updates behind it, and --updates is 7: nothing is"),
    ],
)  # fmt: skip
def test_a_training_that_could_not_go_on_is_refused_before_fairseq_starts(
    made, tmp_path, change, flags, message
):
    def trained(state):
        state["optimizer_history"][-1]["criterion_name"] = "LabelSmoothedCrossEntropyCriterion"
        state["last_optimizer_state"] = {"state": {0: {"step": 7}}}
        if change:
            change(state)

    place = changed(made, tmp_path, trained)
    last = tmp_path / "run" / "checkpoint_last.pt"
    flags = [word for word in words(made / "data", tmp_path / "run") if "=" not in word] + flags
    assert refused(message, hand_over_training, place, last, flags)
    assert not (tmp_path / "run").exists()
    if not change and "--max-update" in flags:
        flags[-1] = "8"
        assert hand_over_training(place, last, flags) == 7
        assert refused("has begun", hand_over_training, place, last, flags)
        assert refused("name the checkpoint", hand_over_training, tmp_path, tmp_path / "x", flags)


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, message",
    [
        ("--model a --out b", "--vocabulary is missing"),
        ("--continue a --out b", "--continue needs, after --, the words of the fairseq-train"),
        ("--model nowhere --vocabulary {data} --out b", "nowhere is missing"),
    ],
)
def test_a_command_that_lacks_something_says_what(made, monkeypatch, capsys, line, message):
    monkeypatch.setattr(sys, "argv", ["dad-hand-over", *line.format(data=made / "data").split()])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 1 and message in capsys.readouterr().err


def test_train_sh_goes_on_from_a_checkpoint_and_leaves_a_model(made, stock, tmp_path):
    last = stock / "checkpoint_last.pt"
    updates = load_checkpoint(last)["optimizer_history"][-1]["num_updates"]
    path = f"{warm_commands().folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "recipes" / "stages" / "train.sh", "--data", made / "data",
         "--out", tmp_path / "teacher", "--size", SIZE, "--continue", last,
         "--updates", str(updates + 1), "--data-workers", "0", "--max-tokens", "600",
         "--", "--cpu", "--allow-unknown-vocabulary", "--log-interval", "1"],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"goes on after update {updates}" in done.stdout
    assert f'"num_updates": "{updates + 1}"' in done.stdout
    names = {path.name for path in (tmp_path / "teacher").iterdir()}
    assert {"model.pt", "vocabulary.json", "manifest.json", "command.txt"} <= names
    assert "checkpoints" not in names
