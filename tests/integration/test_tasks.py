"""The registered tasks under stock fairseq-train, fairseq-generate and fairseq-validate."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_prep.binarise import binarise
from data_prep.vocabulary import make_vocabulary, read_vocabulary
from fairseq_plugins.checkpoints import load_checkpoint, vocabulary_of
from fairseq_plugins.export.weights import keep_weights
from tests.fixtures.fairseq_cli import TINY, USER_DIR, run, train
from tests.fixtures.models import toy_checkpoint, toy_lines, write_text

SENTENCES = 101  # not a multiple of 8, of which fairseq would drop the rest


def text_folder(folder, seed):
    folder.mkdir(parents=True)
    for number, (split, size) in enumerate(
        (("train", 60), ("dev", SENTENCES), ("test", SENTENCES))
    ):
        lines = toy_lines(size, seed=seed * 10 + number, longest=5)
        write_text(folder / f"{split}.de", lines)
        write_text(folder / f"{split}.en", [line[::-1] for line in lines])
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Text, vocabularies `ours` and `theirs`, prepared folders `general`, `domain`, `foreign`."""
    root = tmp_path_factory.mktemp("made")
    for name, seed in (("general", 1), ("domain", 2)):
        text_folder(root / "text" / name, seed)
    make_vocabulary(root / "text" / "general", "de", "en", 300, root / "ours")
    make_vocabulary(root / "text" / "domain", "de", "en", 300, root / "theirs")
    binarise(root / "text" / "general", root / "ours", root / "general")
    binarise(root / "text" / "domain", root / "ours", root / "domain")
    binarise(root / "text" / "general", root / "theirs", root / "foreign")
    trained = train(root / "general", root / "run", "--max-update", 2, "--lr", 0.01)
    assert trained.status == 0, trained.output
    return root


def test_stock_fairseq_train_finds_the_task(made, tmp_path):
    """The real command in a process of its own; the other tests fork."""
    command = [
        Path(sys.executable).with_name("fairseq-train"), made / "general", "--user-dir", USER_DIR,
        "--task", "sequence_distillation", "--save-dir", tmp_path / "run", *TINY,
        "--max-update", 1, "--lr", 0.01, "--cpu",
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert '"valid_bleu"' in done.stdout
    assert (tmp_path / "run" / "checkpoint_best.pt").exists()


def test_the_vocabulary_travels_in_the_checkpoint(made):
    state = load_checkpoint(made / "run" / "checkpoint_best.pt")
    assert vocabulary_of(state) == read_vocabulary(made / "general").files


def test_validation_decodes_every_sentence_greedily_and_with_a_beam(made, tmp_path):
    done = train(made / "general", tmp_path, "--max-update", 1, "--lr", 0.01)
    (entry,) = done.entries("valid")
    assert entry["valid_sentences"] == SENTENCES
    assert {"valid_bleu", "valid_chrf", "valid_bleu_greedy", "valid_chrf_greedy"} <= entry.keys()
    assert 0 < entry["valid_chrf"] < 100


def test_validation_scores_are_those_of_the_decoded_text(made, tmp_path):
    """chrF logged in validation = chrF of fairseq-generate's output, joined by our subwords."""
    from sacrebleu.metrics import CHRF

    # random, but its output depends on the source, so that mixed-up references would show
    model = toy_checkpoint(tmp_path / "model.pt", made / "ours")
    # the same batches on both sides, because the length limit is that of the longest source
    flags = ("--path", model, "--task", "sequence_distillation", "--max-tokens", 600)
    decoded = run("fairseq-generate", made / "general", *flags, "--gen-subset", "valid",
                  "--beam", 1, "--max-len-a", 2, "--max-len-b", 20)  # fmt: skip
    subwords = read_vocabulary(made / "general").subwords("de")
    found = {}
    for line in decoded.output.splitlines():
        if line.startswith("H-"):
            number, _, pieces = line.split("\t")
            found[int(number[2:])] = subwords.decode(pieces.split())
    references = (made / "text" / "general" / "dev.en").read_text().splitlines()
    expected = CHRF().corpus_score([found[i] for i in range(SENTENCES)], [references]).score

    validated = run("fairseq-validate", made / "general", *flags)
    assert f"chrf_greedy {round(expected, 2):g} " in validated.output, validated.output


def test_generate_gives_a_line_for_every_line(made):
    done = run(
        "fairseq-generate", made / "general", "--task", "sequence_distillation",
        "--path", made / "run" / "checkpoint_best.pt", "--gen-subset", "test", "--max-len-b", 5,
    )  # fmt: skip
    numbers = [
        int(line[2:].split("\t")[0]) for line in done.output.splitlines() if line[:2] == "H-"
    ]
    assert sorted(numbers) == list(range(SENTENCES))


def test_interactive_takes_and_gives_plain_text(made, tmp_path):
    text = write_text(tmp_path / "in", toy_lines(5, seed=9, longest=4))
    done = run(
        "fairseq-interactive", made / "general", "--task", "sequence_distillation",
        "--path", made / "run" / "checkpoint_best.pt", "--input", text,
        "--bpe", "sentencepiece", "--sentencepiece-model", made / "general" / "subwords.model",
        "--buffer-size", 5, "--max-len-b", 5,
    )  # fmt: skip
    assert done.status == 0, done.output
    said = dict(line.split("\t")[::2] for line in done.output.splitlines() if line[:2] == "D-")
    assert sorted(said) == [f"D-{number}" for number in range(5)]


def test_training_sees_every_pair_of_a_mixture(made, tmp_path):
    mixture = f"{made / 'general'}=2,{made / 'domain'}=0.5"
    done = train(made / "general", tmp_path, "--mixture", mixture, "--max-epoch", 1, "--lr", 0.01,
                 "--valid-beam", 0)  # fmt: skip
    assert done.status == 0, done.output
    assert f"{made / 'general'}: 60 training pairs, weight 2" in done.output
    sentences = sum(entry["bsz"] for entry in done.entries("train_inner"))
    assert sentences == 60 * 2 + 30


def test_an_epoch_can_be_a_fraction_of_a_pass(made, tmp_path):
    done = train(made / "general", tmp_path, "--epoch-fraction", 0.25, "--max-epoch", 4,
                 "--lr", 0.01, "--valid-beam", 0)  # fmt: skip
    assert len(done.entries("valid")) == 4
    assert sum(entry["bsz"] for entry in done.entries("train_inner")) == 60


@pytest.mark.parametrize("start", ["--finetune-from-model", "--restore-file"])
def test_training_from_a_model_with_another_vocabulary_is_refused(made, tmp_path, start):
    checkpoint = made / "run" / "checkpoint_best.pt"
    done = train(made / "foreign", tmp_path, start, checkpoint, "--max-update", 3, "--lr", 0.01)
    assert done.status != 0
    assert "was trained with another vocabulary" in done.output
    assert "subwords.model" in done.output and "begin training" not in done.output


def test_going_on_in_a_folder_with_another_vocabulary_is_refused(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    done = train(made / "foreign", tmp_path / "run", "--max-update", 3, "--lr", 0.01)
    assert done.status != 0 and "was trained with another vocabulary" in done.output


@pytest.mark.parametrize("command", ["fairseq-generate", "fairseq-validate"])
def test_decoding_with_another_vocabulary_is_refused(made, command):
    done = run(command, made / "foreign", "--task", "sequence_distillation",
               "--path", made / "run" / "checkpoint_best.pt", "--max-tokens", 600)  # fmt: skip
    assert done.status != 0 and "was trained with another vocabulary" in done.output
    assert "H-0" not in done.output and "| valid |" not in done.output


def test_a_mixture_of_different_vocabularies_is_refused(made, tmp_path):
    mixture = f"{made / 'general'}=1,{made / 'foreign'}=1"
    done = train(made / "general", tmp_path, "--mixture", mixture, "--max-update", 1, "--lr", 0.01)
    assert done.status != 0 and "were prepared with different vocabularies" in done.output


@pytest.mark.parametrize("flags, accepted", [((), False), (("--allow-unknown-vocabulary",), True)])
def test_a_stock_checkpoint_needs_consent(made, tmp_path, flags, accepted):
    state = load_checkpoint(made / "run" / "checkpoint_best.pt")
    state["task_state"] = {}
    torch.save(state, tmp_path / "stock.pt")
    done = train(made / "general", tmp_path / "run", "--finetune-from-model", tmp_path / "stock.pt",
                 "--max-update", 1, "--lr", 0.01, *flags)  # fmt: skip
    assert (done.status == 0) is accepted, done.output
    assert accepted or "carries no vocabulary fingerprint" in done.output


def test_adapting_needs_a_model_to_start_from(made, tmp_path):
    done = train(made / "domain", tmp_path, "--max-update", 1, "--lr", 0.01,
                 task="domain_adaptation")  # fmt: skip
    assert done.status != 0 and "--finetune-from-model" in done.output


def test_adapting_hands_over_the_weights_and_nothing_else(made, tmp_path):
    before = load_checkpoint(made / "run" / "checkpoint_best.pt")
    done = train(made / "domain", tmp_path, "--finetune-from-model",
                 made / "run" / "checkpoint_best.pt", "--max-update", 1, "--lr", 0,
                 "--stop-min-lr", -1, task="domain_adaptation")  # fmt: skip
    assert done.status == 0, done.output
    after = load_checkpoint(tmp_path / "checkpoint_best.pt")
    for name, weight in before["model"].items():
        torch.testing.assert_close(after["model"][name], weight, rtol=0, atol=0)
    assert before["optimizer_history"][-1]["num_updates"] == 2
    assert [entry["num_updates"] for entry in after["optimizer_history"]][-1] == 1
    assert {int(state["step"]) for state in after["last_optimizer_state"]["state"].values()} == {1}
    assert done.entries("train_inner")[0]["epoch"] == 1


def test_patience_survives_a_resume(made, tmp_path):
    # a rate of 0: every validation after the first one is without improvement
    flags = ("--lr", 0, "--stop-min-lr", -1, "--patience", 3, "--epoch-fraction", 0.5,
             "--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric")  # fmt: skip
    first = train(made / "general", tmp_path, *flags, "--max-epoch", 2)
    assert len(first.entries("valid")) == 2  # the best, and one without improvement
    assert (
        load_checkpoint(tmp_path / "checkpoint_last.pt")["task_state"]["patience"]["num_runs"] == 1
    )
    second = train(made / "general", tmp_path, *flags, "--max-epoch", 20)
    assert "early stop" in second.output
    assert len(second.entries("valid")) == 2  # two more make three


def test_an_interrupted_training_ends_with_the_same_bytes(made, tmp_path):
    flags = ("--lr", 0.01, "--epoch-fraction", 0.25, "--save-interval", 1,
             "--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric")  # fmt: skip
    train(made / "general", tmp_path / "straight", *flags, "--max-epoch", 6)
    train(made / "general", tmp_path / "broken", *flags, "--max-epoch", 3)
    last = tmp_path / "broken" / "checkpoint_last.pt"
    train(made / "general", tmp_path / "broken", *flags, "--max-epoch", 6)
    models = {}
    for name in ("straight", "broken"):
        checkpoint = tmp_path / name / "checkpoint_last.pt"
        keep_weights(checkpoint, made / "general", tmp_path / f"{name}-model")
        models[name] = (tmp_path / f"{name}-model" / "model.pt").read_bytes()
    assert last.exists() and models["straight"] == models["broken"]


@pytest.mark.parametrize(
    "flags, reason",
    [
        (("--lr", 0.01, "--max-update", 3), "with 3 of 3 updates"),
        (("--lr", 0, "--stop-min-lr", -1, "--patience", 1, "--epoch-fraction", 0.5),
         "with 1 validations without improvement (--patience 1)"),
    ],
)  # fmt: skip
def test_a_training_that_had_ended_does_not_go_on(made, tmp_path, flags, reason):
    """A run killed after its last checkpoint ends with the same bytes when it is run again."""
    flags += ("--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric")
    assert train(made / "general", tmp_path, *flags).status == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("*.pt")}
    again = train(made / "general", tmp_path, *flags)
    assert again.status == 0 and reason in again.output, again.output
    assert again.entries("valid") == []
    assert {path: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    more = train(made / "general", tmp_path, *flags, "--max-update", 9, "--patience", 2)
    assert more.entries("valid")


def test_a_last_checkpoint_cut_short_by_a_kill_is_mended(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    last = tmp_path / "run" / "checkpoint_last.pt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    done = train(made / "general", tmp_path / "run", "--max-update", 3, "--lr", 0.01)
    assert done.status == 0, done.output
    assert "cut short by a kill; taken anew from checkpoint_best.pt" in done.output
    assert [entry["num_updates"] for entry in done.entries("train_inner")] == [3]


def test_two_damaged_checkpoints_are_an_error(made, tmp_path):
    (tmp_path / "checkpoint_last.pt").write_bytes(b"PK")
    (tmp_path / "checkpoint_best.pt").write_bytes(b"PK")
    done = train(made / "general", tmp_path, "--max-update", 3, "--lr", 0.01)
    assert done.status != 0 and "holds no other checkpoint; remove it" in done.output


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--eval-bleu",), "use --valid-beam instead"),
        (("--valid-beam", -1), "--valid-beam is 0 or more, not -1"),
        (("--epoch-fraction", 0.4), "--epoch-fraction"),
        (("--mixture", "a=0"), "--mixture takes"),
    ],
)
def test_bad_flags_are_refused_before_training(made, tmp_path, flags, message):
    done = train(made / "general", tmp_path, "--max-update", 1, "--lr", 0.01, *flags)
    assert done.status != 0 and message in done.output


def test_a_held_out_text_that_was_edited_is_noticed(made, tmp_path):
    shutil.copytree(made / "general", tmp_path / "data")
    with open(tmp_path / "data" / "valid.en", "a") as file:
        file.write("one more\n")
    done = train(tmp_path / "data", tmp_path / "run", "--max-update", 1, "--lr", 0.01)
    assert done.status != 0 and "has 102 lines" in done.output


def test_a_dictionary_that_was_edited_is_noticed(made, tmp_path):
    shutil.copytree(made / "general", tmp_path / "data")
    with open(tmp_path / "data" / "dict.en.txt", "a") as file:
        file.write("extra 1\n")
    done = train(tmp_path / "data", tmp_path / "run", "--max-update", 1, "--lr", 0.01)
    assert done.status != 0 and "dict.en.txt is not the file" in done.output


def test_a_sentence_too_long_for_the_model_is_never_skipped_silently(made, tmp_path):
    done = run(
        "fairseq-generate", made / "general", "--task", "sequence_distillation",
        "--path", made / "run" / "checkpoint_best.pt", "--gen-subset", "test",
        "--max-source-positions", 8, "--skip-invalid-size-inputs-valid-test",
    )  # fmt: skip
    assert done.status != 0 and "nothing is skipped here" in done.output
