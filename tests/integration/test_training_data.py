"""What the tasks train on and validate: tags, temperature, sampled sources, replay, domains."""

import shutil

import numpy as np
import pytest

from data_prep.binarise import binarise
from data_prep.files import read_lines
from data_prep.vocabulary import make_vocabulary, read_vocabulary
from fairseq_plugins import proposals
from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.data.mixture import MixtureDataset
from tests.fixtures.fairseq_cli import run, train
from tests.fixtures.models import toy_checkpoint, toy_model, write_text
from tests.fixtures.prepared import SIZES, prepared_folders, set_up


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = prepared_folders(tmp_path_factory.mktemp("made"))
    toy_checkpoint(root / "model.pt", root / "ours")
    make_vocabulary(root / "text" / "domain", "de", "en", 300, root / "theirs")
    shutil.copytree(root / "domain", root / "foreign")
    read_vocabulary(root / "theirs").copy_to(root / "foreign")
    return root


def source_ids(task, text):
    pieces = task.source_subwords.encode(text)
    return [*(task.src_dict.index(piece) for piece in pieces), task.src_dict.eos()]


def sources(dataset):
    return [dataset[index]["source"].tolist() for index in range(len(dataset))]


# -- tags ------------------------------------------------------------------------------------


def test_tagged_sources_are_the_pieces_of_the_tagged_text(made, tmp_path):
    """Training, the own dev set and that of another domain; each folder its own tag."""
    general, domain = made / "general", made / "domain"
    task = set_up(
        general, tmp_path, "--mixture", f"{general}=1,{domain}=1",
        "--domain-tags", f"{general}=<general>,{domain}=<de>",
        "--valid-domains", f"dom={domain}", "--valid-subset", "valid,valid_dom",
    )  # fmt: skip
    for split in ("train", "valid", "valid_dom"):
        task.load_dataset(split)
    text = {name: made / "text" / name for name in SIZES}
    expected = {
        "valid": [f"<general> {line}" for line in read_lines(text["general"] / "dev.de")],
        "valid_dom": [f"<de> {line}" for line in read_lines(text["domain"] / "dev.de")],
    }
    for split, lines in expected.items():
        assert sources(task.dataset(split)) == [source_ids(task, line) for line in lines]
        assert [task.dataset(split).size(i)[0] for i in range(len(lines))] == list(
            map(len, sources(task.dataset(split)))
        )
    lines = [f"<general> {line}" for line in read_lines(text["general"] / "train.de")]
    lines += [f"<de> {line}" for line in read_lines(text["domain"] / "train.de")]
    assert sorted(sources(task.dataset("train"))) == sorted(source_ids(task, x) for x in lines)
    assert sorted(task.dataset("train").sizes[:, 0]) == sorted(
        map(len, sources(task.dataset("train")))
    )


def test_a_tag_before_the_text_to_translate_gives_what_validation_scores(made, tmp_path):
    """chrF of the tagged dev set = chrF of a folder prepared from text with the tag in it."""
    flags = ("--path", made / "model.pt", "--task", "sequence_distillation", "--max-tokens", 600)
    tagged = run("fairseq-validate", made / "domain", *flags,
                 "--domain-tags", f"{made / 'domain'}=<de>")  # fmt: skip
    plain = run("fairseq-validate", made / "domain", *flags)
    for split in ("train", "dev"):
        lines = [f"<de> {line}" for line in read_lines(made / "text" / "domain" / f"{split}.de")]
        write_text(tmp_path / f"{split}.de", lines)
        shutil.copy(made / "text" / "domain" / f"{split}.en", tmp_path / f"{split}.en")
    binarise(tmp_path, made / "ours", tmp_path / "prepared", splits=("train", "dev"))
    written = run("fairseq-validate", tmp_path / "prepared", *flags)
    shown = [done.output.split("| valid | valid on")[-1].split("| INFO |")[-1].split("| loss")[1]
             for done in (tagged, written, plain)]  # fmt: skip
    assert "chrf_greedy" in shown[0] and shown[0] == shown[1] != shown[2]


# -- mixtures --------------------------------------------------------------------------------


def test_temperature_changes_how_often_a_small_bitext_is_seen(made, tmp_path):
    mixture = ("--mixture", f"{made / 'general'}=1,{made / 'domain'}=1")
    for flags, pairs in (((), 84), (("--mixture-temperature", "inf"), 120)):
        task = set_up(made / "general", tmp_path, *mixture, *flags)
        task.load_dataset("train")
        assert len(task.dataset("train")) == pairs


def test_the_resulting_numbers_are_logged(made, tmp_path, caplog):
    flags = ("--mixture", f"{made / 'general'}=1,{made / 'domain'}=1", "--mixture-temperature", 2)
    task = set_up(made / "general", tmp_path, *flags)
    with caplog.at_level("INFO"):
        task.load_dataset("train")
    assert f"{made / 'domain'}: 24 training pairs, weight 1.58114, 38 pairs in a pass" in (
        caplog.text
    )


# -- sampled sources -------------------------------------------------------------------------


def test_sampled_training_is_other_pieces_of_the_same_text_and_validation_stays(made, tmp_path):
    tag = ("--domain-tags", f"{made / 'general'}=<de>")
    task = set_up(made / "general", tmp_path, "--source-sampling", 0.1, *tag)
    plain = set_up(made / "general", tmp_path, *tag)
    for split in ("train", "valid"):
        task.load_dataset(split)
        plain.load_dataset(split)
    assert sources(task.dataset("valid")) == sources(plain.dataset("valid"))

    def text(source):
        return task.source_subwords.decode([task.src_dict[number] for number in source[:-1]])

    drawn = {}
    for epoch in (1, 2):
        task.dataset("train").set_epoch(epoch)
        drawn[epoch] = sources(task.dataset("train"))
        # one fairseq epoch is one pass in the order of the folder
        assert list(map(text, drawn[epoch])) == list(map(text, sources(plain.dataset("train"))))
    assert drawn[1] != drawn[2] and drawn[1] != sources(plain.dataset("train"))
    again = set_up(made / "general", tmp_path, "--source-sampling", 0.1, *tag)
    again.load_dataset("train", epoch=2)
    assert sources(again.dataset("train")) == drawn[2]
    other = set_up(made / "general", tmp_path, "--source-sampling", 0.1, *tag, "--seed", 2)
    other.load_dataset("train", epoch=2)
    assert sources(other.dataset("train")) != drawn[2]


def test_sampling_never_makes_a_source_too_long_for_the_model(made, tmp_path):
    task = set_up(made / "general", tmp_path, "--source-sampling", 0.01)
    task.load_dataset("train")
    longest = int(task.dataset("train").sizes[:, 0].max())
    assert max(map(len, sources(task.dataset("train")))) > longest
    flags = ("--source-sampling", 0.01, "--max-source-positions", longest)
    task = set_up(made / "general", tmp_path, *flags)
    task.load_dataset("train")
    assert max(map(len, sources(task.dataset("train")))) <= longest


# -- replay ----------------------------------------------------------------------------------


def adapting(made, save_dir, *flags):
    return set_up(made / "domain", save_dir, "--finetune-from-model", made / "model.pt", *flags,
                  task="domain_adaptation")  # fmt: skip


def test_replay_mixes_its_share_into_every_pass_and_the_domain_keeps_its_pairs(made, tmp_path):
    task = adapting(made, tmp_path, "--replay", f"{made / 'general'}=0.25", "--epoch-fraction", 0.5)
    task.load_dataset("train")
    dataset = task.dataset("train")
    own = set(map(tuple, (source_ids(task, x) for x in read_lines(made / "text/domain/train.de"))))
    replayed = []
    for first in (1, 3):
        seen = []
        for epoch in (first, first + 1):
            dataset.set_epoch(epoch)
            seen += map(tuple, sources(dataset))
        replayed.append({source for source in seen if source not in own})
        assert {source for source in seen if source in own} == own
        assert len(seen) == 32 and sum(source not in own for source in seen) == 8
    assert replayed[0] != replayed[1]


def test_replay_stands_beside_a_mixture(made, tmp_path):
    shutil.copytree(made / "domain", tmp_path / "more")
    task = adapting(
        made, tmp_path, "--mixture", f"{made / 'domain'}=1,{tmp_path / 'more'}=2",
        "--replay", f"{made / 'general'}=0.5", "--epoch-fraction", 1,
    )  # fmt: skip
    task.load_dataset("train")
    assert isinstance(task.dataset("train"), MixtureDataset)
    assert len(task.dataset("train")) == 2 * (24 + 2 * 24)


# -- validation of several domains -----------------------------------------------------------


@pytest.mark.parametrize("subsets", ["valid,valid_dom", "valid_dom,valid"])
def test_dev_sets_of_two_domains_are_scored_and_the_first_chooses(made, tmp_path, subsets):
    done = train(
        made / "general", tmp_path, "--lr", 0.01, "--max-epoch", 2,
        "--valid-domains", f"dom={made / 'domain'}", "--valid-subset", subsets,
        "--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric",
    )  # fmt: skip
    assert done.status == 0, done.output
    scores = {}
    for split, sentences in (("valid", 21), ("valid_dom", 13)):
        entries = done.entries(split)
        assert [entry[f"{split}_sentences"] for entry in entries] == [sentences] * 2
        keys = {f"{split}_{name}" for name in ("bleu", "chrf", "bleu_greedy", "chrf_greedy")}
        assert all(keys <= entry.keys() for entry in entries)
        scores[split] = [entry[f"{split}_chrf"] for entry in entries]
    assert max(scores["valid"]) != max(scores["valid_dom"])
    best = load_checkpoint(tmp_path / "checkpoint_last.pt")["extra_state"]["best"]
    assert best == max(scores[subsets.split(",")[0]])


def test_a_domain_is_scored_as_its_own_folder_would_be(made):
    flags = ("--path", made / "model.pt", "--task", "sequence_distillation", "--max-tokens", 600)
    alone = run("fairseq-validate", made / "domain", *flags)
    beside = run("fairseq-validate", made / "general", *flags, "--valid-subset", "valid_dom",
                 "--valid-domains", f"dom={made / 'domain'}")  # fmt: skip
    found = [
        [line.split("| loss")[1] for line in done.output.splitlines() if "chrf_greedy" in line]
        for done in (alone, beside)
    ]
    assert found[0] == found[1] and len(found[0]) == 1


# -- settings that are refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--mixture-temperature", 0.5, "--mixture", "{general}"), "--mixture-temperature is 1"),
        (("--mixture-temperature", 2), "name them with --mixture"),
        (("--source-sampling", -0.1), "--source-sampling is 0"),
        (("--source-sampling", 1.1), "--source-sampling is 0"),
        (("--domain-tags", "{general}=a b"), "--domain-tags takes FOLDER=TAG"),
        (("--domain-tags", "{domain}=<a>"), "not among the prepared folders of this run"),
        (("--valid-domains", "dom"), "--valid-domains takes NAME=FOLDER"),
        (("--valid-domains", "dom={domain}"), "add --valid-subset valid,valid_dom"),
        (("--valid-domains", "dom={foreign}"), "prepared with different vocabularies"),
        (("--valid-domains", "dom={general}/no"), "holds no vocabulary"),
        (("--epoch-fraction", 0), "--epoch-fraction is one pass"),
    ],
)
def test_bad_settings_are_refused_before_training(made, tmp_path, flags, message):
    flags = [str(flag).format(**{n: made / n for n in ("general", "domain", "foreign")})
             for flag in flags]  # fmt: skip
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        set_up(made / "general", tmp_path, *flags)


def test_a_dev_set_that_no_domain_names_is_refused(made, tmp_path):
    task = set_up(made / "general", tmp_path, "--valid-subset", "valid,valid_dom")
    with pytest.raises(ValueError, match="add --valid-domains dom=FOLDER"):
        task.load_dataset("valid_dom")


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--replay", "{general}=1"), "--replay takes FOLDER=SHARE"),
        (("--replay", "{domain}=0.5"), "trained on as in-domain bitext already"),
        (("--replay", "{foreign}=0.5"), "prepared with different vocabularies"),
        (("--general-floor", 1), "--general-valid"),
        (("--general-floor", -1, "--general-valid", "{general}"), "--general-floor is a number"),
        (("--general-valid", "{foreign}"), "prepared with different vocabularies"),
        (("--epoch-fraction", 0.4), "--epoch-fraction is one pass"),
    ],
)
def test_bad_settings_of_adapting_are_refused_before_training(made, tmp_path, flags, message):
    flags = [str(flag).format(**{n: made / n for n in ("general", "domain", "foreign")})
             for flag in flags]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        adapting(made, tmp_path, *flags)


# -- all together, proposals -----------------------------------------------------------------


def everything(made):
    return (
        "--lr", 0.01, "--valid-beam", 1, "--max-tokens", 100, "--save-interval-updates", 3,
        "--encoder-normalize-before", "--decoder-normalize-before", "--seed", 3,
        "--finetune-from-model", made / "model.pt", "--replay", f"{made / 'general'}=0.3",
        "--source-sampling", 0.2, "--general-valid", made / "general", "--general-floor", 90,
        "--domain-tags", f"{made / 'general'}=<a>,{made / 'domain'}=<b>",
        "--valid-domains", f"gen={made / 'general'}", "--valid-subset", "valid,valid_gen",
        "--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric",
    )  # fmt: skip


def test_a_run_stopped_in_mid_epoch_goes_on_with_the_same_losses(made, tmp_path):
    """With every option at once, and a worker process that loads the data at the end."""
    flags = everything(made)
    straight = train(made / "domain", tmp_path / "straight", *flags, "--max-epoch", 2,
                     task="domain_adaptation")  # fmt: skip
    assert straight.status == 0, straight.output
    entries = straight.entries("train_inner")
    epochs = [entry["epoch"] for entry in entries]
    assert epochs[2] == epochs[3]  # update 3, the last of the first run, is in mid-epoch
    first = train(made / "domain", tmp_path / "broken", *flags, "--max-update", 3,
                  task="domain_adaptation")  # fmt: skip
    assert first.status == 0
    second = train(made / "domain", tmp_path / "broken", *flags, "--max-epoch", 2,
                   "--num-workers", 1, task="domain_adaptation")  # fmt: skip
    assert "general-domain BLEU of the start model" in first.output
    assert "general-domain BLEU of the start model" not in second.output
    losses = [[(e["num_updates"], e["loss"]) for e in done.entries("train_inner")]
              for done in (straight, first, second)]  # fmt: skip
    assert losses[1] + losses[2] == losses[0]
    ours, theirs = (
        load_checkpoint(tmp_path / name / "checkpoint_last.pt") for name in ("straight", "broken")
    )
    assert all(weights.equal(theirs["model"][key]) for key, weights in ours["model"].items())
    assert ours["task_state"] == theirs["task_state"]


def test_a_kept_model_names_no_folder_of_its_training(made, tmp_path):
    folders = {"data": "no/where", "replay": "general=0.5", "general_valid": "general",
               "domain_tags": "general=<a>", "valid_domains": "g=general"}  # fmt: skip
    state = load_checkpoint(made / "model.pt")
    state["cfg"]["task"].update(folders)
    toy = toy_model(tmp_path / "model", made / "ours", cfg=state["cfg"])
    kept = load_checkpoint(toy / "model.pt")["cfg"]["task"]
    assert {name: kept.get(name) for name in folders} == {**dict.fromkeys(folders), "data": "."}


def test_adapting_proposes_its_epochs_and_remembers_them(made, tmp_path, caplog):
    task = adapting(made, tmp_path, "--max-tokens", 1)  # an update for each token
    with caplog.at_level("INFO"):
        task.load_dataset("train")
    sizes = proposals.read_sizes(made / "domain")
    updates = int(np.max(sizes, axis=1).sum())
    slices = proposals.propose(24, updates).slices
    assert slices > 1
    assert len(task.dataset("train")) == -(-24 // slices)
    assert task.state_dict()["slices"] == slices
    assert f"about {updates:,} updates in a pass" in caplog.text and "--lr is 0.25" in caplog.text


def test_a_resumed_adaptation_keeps_its_epochs_with_other_batches(made, tmp_path):
    flags = ("--lr", 0.01, "--encoder-normalize-before", "--decoder-normalize-before",
             "--finetune-from-model", made / "model.pt", "--valid-beam", 0)  # fmt: skip
    done = train(made / "domain", tmp_path, *flags, "--max-update", 2, task="domain_adaptation")
    assert done.status == 0, done.output
    assert load_checkpoint(tmp_path / "checkpoint_last.pt")["task_state"]["slices"] == 1
    task = adapting(made, tmp_path, "--max-tokens", 1)
    task.load_dataset("train")
    assert len(task.dataset("train")) == 24


def test_dad_propose_prints_flags_and_reasons(made, capsys):
    proposals._main(["--data", str(made / "domain"), "--max-tokens", "50", "--update-freq", "2"])
    printed = capsys.readouterr().out
    updates = -(-int(np.max(proposals.read_sizes(made / "domain"), axis=1).sum()) // 100)
    assert f"24 pairs, about {updates} updates in a pass" in printed
    flags = [line.split()[0] for line in printed.splitlines() if line.startswith("--")]
    assert flags == ["--lr", "--epoch-fraction", "--max-update", "--patience"]
    assert "rule of thumb" in printed and "Gordon & Duh 2020" in printed


@pytest.mark.parametrize("flag", ["--max-tokens", "--update-freq", "--workers"])
def test_dad_propose_refuses_what_cannot_be(made, flag):
    with pytest.raises(ValueError, match=f"{flag} is above 0, not 0"):
        proposals._main(["--data", str(made / "domain"), flag, "0"])


def test_dad_propose_needs_a_prepared_folder(made):
    with pytest.raises(FileNotFoundError, match="holds no binarised training set"):
        proposals._main(["--data", str(made / "ours")])
