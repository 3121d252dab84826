"""dad-cache-teacher for real: what is cached is what the teacher says, killed, shared, refused."""

import importlib
import itertools
import json
import multiprocessing
import random
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf
from tqdm import tqdm

from data_prep.binarise import binarise
from data_prep.manifest import read_manifest
from fairseq_plugins.generation.fairseq_backend import quiet
from fairseq_plugins.tasks.options import SequenceDistillationConfig
from fairseq_plugins.tasks.sequence_distillation import SequenceDistillationTask
from fairseq_plugins.teachers import cache as module
from fairseq_plugins.teachers.cache import cache_teacher
from fairseq_plugins.teachers.cache_format import TeacherCache
from fairseq_plugins.teachers.online import load_teachers, teacher_lprobs
from tests.fixtures.fairseq_cli import train
from tests.fixtures.faults import die_at, on_a_small_disk, show_on
from tests.fixtures.models import toy_lines, toy_model, toy_vocabulary, write_text

# pytest's name of this module is one that no other process could import
HERE = "tests.integration.test_teacher_cache"
SERVER = multiprocessing.get_context("forkserver")
LONGEST_WAIT = 60  # seconds

TRAIN, DEV = 40, 11
SHARD = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Prepared folders ``general``, ``domain``, ``foreign`` (another vocabulary), teachers."""
    root = tmp_path_factory.mktemp("made")
    toy_vocabulary(root / "ours")
    theirs = toy_vocabulary(root / "theirs", seed=5)
    for seed, name in enumerate(("general", "domain"), start=1):
        (root / "text" / name).mkdir(parents=True)
        for number, (split, size) in enumerate((("train", TRAIN), ("dev", DEV))):
            lines = toy_lines(size, seed=10 * seed + number, longest=4)
            write_text(root / "text" / name / f"{split}.de", lines)
            write_text(root / "text" / name / f"{split}.en", [line[::-1] for line in lines])
        binarise(root / "text" / name, root / "ours", root / name, splits=("train", "dev"))
    shutil.copytree(root / "general", root / "foreign")
    theirs.copy_to(root / "foreign")
    for seed in (1, 2):
        toy_model(root / f"teacher{seed}", root / "ours", seed=seed)
    return root


@pytest.fixture(scope="module")
def cache(made):
    """A cache of ``general`` that nobody touches."""
    make(made, made / "cache")
    return made / "cache"


def make(made, out, *, teachers=("teacher1",), data="general", **settings):
    settings = {"top_k": 5, "shard_sentences": SHARD, "device": "cpu", **settings}
    return cache_teacher([made / name for name in teachers], made / data, out, **settings)


def files(folder):
    """Bytes of each array of a cache."""
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.npy")}


def task_of(made, **settings):
    """The task as training has it."""
    settings = {
        "data": str(made / "general"), "source_lang": "de", "target_lang": "en", **settings
    }  # fmt: skip
    own = OmegaConf.structured(SequenceDistillationConfig(**settings))
    with quiet():
        return SequenceDistillationTask.setup_task(
            OmegaConf.create(FairseqConfig(task=own)).task, from_checkpoint=True
        )


def batches(task, split, epoch=1):
    with quiet():
        task.load_dataset(split, epoch=epoch)
        iterator = task.get_batch_iterator(
            task.dataset(split), max_tokens=200, max_positions=task.max_positions(), epoch=epoch
        )
        return list(iterator.next_epoch_itr(shuffle=False))


# -- cached is online ------------------------------------------------------------------------


def assert_as_online(made, task, samples, teachers, temperature, k):
    """Each position has what the teachers say there; a cache shifted by a sentence has not."""
    networks = load_teachers([made / name for name in teachers], task)
    for sample in samples:
        online = teacher_lprobs(networks, sample["net_input"], temperature)
        real = sample["target"].ne(task.tgt_dict.pad())
        cached = sample["teacher"]["lprobs"][real].float()
        torch.testing.assert_close(cached, online[real].topk(k).values, rtol=0, atol=1e-5)
        there = online[real].gather(-1, sample["teacher"]["indices"][real])
        torch.testing.assert_close(cached, there, rtol=0, atol=1e-5)


@pytest.mark.parametrize("teachers", [["teacher1"], ["teacher1", "teacher2"]],
                         ids=["one", "ensemble"])  # fmt: skip
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_cached_is_what_the_teacher_says(made, tmp_path, teachers, temperature):
    make(made, tmp_path / "cache", teachers=teachers, temperature=temperature, batch_tokens=60)
    for left_pad in (False, True):
        task = task_of(made, teacher_cache=str(tmp_path / "cache"), left_pad_target=left_pad)
        assert (task.teacher_cache.temperature, task.teacher_cache.top_k) == (temperature, 5)
        for split, sentences in (("train", TRAIN), ("valid", DEV)):
            found = batches(task, split)
            assert sum(sample["nsentences"] for sample in found) == sentences
            assert_as_online(made, task, found, teachers, temperature, 5)


def test_each_sentence_of_a_mixture_gets_its_own_distribution(made, cache, tmp_path):
    """Weights and slices of an epoch renumber the sentences; each bitext has its own teacher."""
    make(made, tmp_path / "domain", data="domain", splits=["train"], teachers=["teacher2"])
    task = task_of(
        made, mixture=f"{made / 'general'}=2,{made / 'domain'}=0.5", epoch_fraction=0.5,
        teacher_cache=f"{tmp_path / 'domain'}:{cache}",
    )  # fmt: skip
    general = load_teachers([made / "teacher1"], task)
    domain = load_teachers([made / "teacher2"], task)
    known = {tuple(line) for line in targets_of(made, "domain")}
    common = known & {tuple(line) for line in targets_of(made, "general")}
    assert len(common) <= 1  # a word of one syllable
    seen = 0
    for epoch in (1, 2, 3):
        for sample in batches(task, "train", epoch):
            online = {
                True: teacher_lprobs(domain, sample["net_input"]),
                False: teacher_lprobs(general, sample["net_input"]),
            }
            for row, target in enumerate(sample["target"]):
                real = target.ne(task.tgt_dict.pad())
                line = tuple(target[real].tolist())
                if line in common:
                    continue
                is_domain = line in known
                seen += is_domain
                torch.testing.assert_close(
                    sample["teacher"]["lprobs"][row, real].float(),
                    online[is_domain][row, real].topk(5).values, rtol=0, atol=1e-5,
                )  # fmt: skip
    assert 0 < seen < 3 * TRAIN


def targets_of(made, data):
    task = task_of(made, data=str(made / data))
    with quiet():
        task.load_dataset("train")
    dataset = task.dataset("train")
    return [dataset[number]["target"].tolist() for number in range(len(dataset))]


def test_half_precision_on_disk_is_off_by_a_two_thousandth_at_most(made, cache, tmp_path):
    make(made, tmp_path / "half", precision="float16")
    exact, half = (TeacherCache(path).split("train") for path in (cache, tmp_path / "half"))
    for number in range(TRAIN):
        assert half[number][1].dtype == np.float16
        np.testing.assert_array_equal(half[number][0], exact[number][0])
        np.testing.assert_allclose(half[number][1], exact[number][1], rtol=1 / 2048, atol=6e-8)
    ours, theirs = (sum(map(len, files(path).values())) for path in (tmp_path / "half", cache))
    assert ours < theirs


def test_another_arithmetic_gives_other_digits(made, cache, tmp_path):
    make(made, tmp_path / "bf16", compute_type="bfloat16")
    exact, rough = (TeacherCache(path).split("train") for path in (cache, tmp_path / "bf16"))
    apart = max(np.abs(rough[n][1][:, 0] - exact[n][1][:, 0]).max() for n in range(TRAIN))
    assert 1e-5 < apart < 0.5


def test_a_cache_has_a_row_for_every_token_and_says_so(made, cache):
    record = read_manifest(cache)
    targets = targets_of(made, "general")
    assert record["counts"]["train"]["sentences"] == TRAIN
    assert record["counts"]["train"]["tokens"] == sum(map(len, targets))
    split = TeacherCache(cache).split("train")
    assert [len(split[number][0]) for number in range(TRAIN)] == list(map(len, targets))
    assert len(list(cache.glob("train.*.indices.npy"))) == -(-TRAIN // SHARD)
    written = sum(path.stat().st_size for path in cache.glob("train.0*.npy"))
    assert record["counts"]["train"]["bytes"] == written
    assert abs(written - 5 * 6 * sum(map(len, targets))) <= 128 * 2 * 5  # headers


def test_splits_are_those_asked_for(made, tmp_path):
    make(made, tmp_path / "cache", splits=["valid"])
    assert {name.split(".")[0] for name in files(tmp_path / "cache")} == {"valid"}


def test_no_batch_is_larger_than_asked_for_and_none_is_lost(made):
    lengths = [[3, 2], [9, 1], [1, 30], [4, 4], [2, 2], [8, 8]]
    dataset = type("Sizes", (), {"sizes": np.array(lengths)})
    shard = module.Shard(dataset, "train", 0, 0, 0, 6, None)
    found = list(module._batches(shard, 16))
    assert sorted(itertools.chain(*found)) == list(range(6))
    assert all(
        len(batch) == 1 or len(batch) * max(max(lengths[n]) for n in batch) <= 16
        for batch in found
    )
    assert len(found) < 6 and [2] in found
    assert len(list(module._batches(shard, 10**6))) == 1


# -- killed, shared, no space ----------------------------------------------------------------


def work(words, screen, step, report):
    """The command in a process of its own, killed at a step; leaves the steps that it took."""
    show_on(screen)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its usual one outlives a kill
    taken = die_at(step, words[words.index("--out") + 1])
    sys.argv = words
    try:
        module.main()
    finally:
        Path(report).write_text(json.dumps(taken))


def start(made, out, step=None):
    words = ["dad-cache-teacher", "--teacher", made / "teacher1", "--data", made / "general",
             "--out", out, "--top-k", 5, "--shard-sentences", SHARD, "--device", "cpu"]  # fmt: skip
    process = SERVER.Process(
        target=importlib.import_module(HERE).work, daemon=True,
        args=(list(map(str, words)), f"{out}.screen", step, f"{out}.report"),
    )  # fmt: skip
    process.start()
    return process


def end(process):
    process.join(LONGEST_WAIT)
    assert not process.is_alive()
    return process.exitcode


def kept(out):
    """Time of each shard that was finished."""
    return {path.name: path.stat().st_mtime_ns for path in Path(f"{out}.part").glob("*.0*.json")}


def test_killed_again_and_again_it_goes_on_and_ends_with_the_same_bytes(made, cache, tmp_path):
    chance, out = random.Random(4), tmp_path / "cache"
    before, kills = {}, 0
    while end(start(made, out, chance.randrange(8, 32))) != 0:
        kills += 1
        assert kills < 20
        if out.exists():
            continue  # in the midst of tidying up
        assert before.items() <= kept(out).items(), "work that was done is lost"
        before = kept(out)
    assert kills >= 3
    assert "going on after" in Path(f"{out}.screen").read_text()
    assert files(out) == files(cache) and not Path(f"{out}.part").exists()


def test_killed_at_the_very_end_it_ends_with_the_same_bytes(made, cache, tmp_path):
    assert end(start(made, tmp_path / "whole")) == 0
    steps = json.loads(Path(f"{tmp_path / 'whole'}.report").read_text())
    (renamed,) = [n for n, step in enumerate(steps) if step == "os.rename cache"]
    shutil.rmtree(tmp_path / "whole")
    for step in (renamed - 1, renamed, renamed + 1, len(steps) - 1):
        out = tmp_path / str(step)
        assert end(start(made, out, step)) == -9
        assert out.exists() == (step > renamed)
        assert end(start(made, out)) == 0
        assert files(out) == files(cache) and not Path(f"{out}.part").exists()


def test_a_damaged_shard_is_computed_again(made, cache, tmp_path):
    out = tmp_path / "cache"
    assert end(start(made, out, 36)) == -9
    first, second, third, *_ = sorted(kept(out))
    lprobs = out.with_name("cache.part") / "cache" / first.replace("json", "lprobs.npy")
    lprobs.write_bytes(lprobs.read_bytes()[:-7])
    indices = out.with_name("cache.part") / "cache" / second.replace("json", "indices.npy")
    content = bytearray(indices.read_bytes())
    content[-1] ^= 1
    indices.write_bytes(content)
    assert end(start(made, out)) == 0
    said = Path(f"{out}.screen").read_text()
    assert all(f"train shard {n} is damaged or unfinished" in said for n in (0, 1))
    assert "train shard 2 is damaged" not in said
    assert files(out) == files(cache)


def test_two_processes_share_the_work_and_end_with_the_same_bytes(made, cache, tmp_path):
    out, shards = tmp_path / "cache", -(-TRAIN // SHARD) + -(-DEV // SHARD)
    both = [start(made, out) for _ in range(2)]
    assert [end(process) for process in both] == [0, 0]
    assert files(out) == files(cache) and not Path(f"{out}.part").exists()
    assert len(list(out.glob("*.lprobs.npy"))) == shards


def work_on_a_small_disk(words, disk, screen, report):
    """Run the command on a disk with a little more room every time, until it succeeds."""
    torch.set_num_threads(1)
    try:
        entries = [
            [status, said, sorted(path.name for path in Path(disk).iterdir())]
            for status, said in on_a_small_disk(
                module.main, words, disk, range(16, 400, 12), screen
            )
        ]
    except OSError as error:
        Path(report).write_text(json.dumps(str(error)))
        return
    shutil.copytree(Path(disk) / "cache", Path(disk).parent / "made")
    Path(report).write_text(json.dumps(entries))


def test_a_full_disk_leaves_nothing_half_written_and_more_room_lets_it_go_on(
    made, cache, tmp_path
):
    disk, report = tmp_path / "disk", tmp_path / "report"
    disk.mkdir()
    words = ["dad-cache-teacher", "--teacher", made / "teacher1", "--data", made / "general",
             "--out", disk / "cache", "--top-k", 5, "--shard-sentences", SHARD,
             "--device", "cpu"]  # fmt: skip
    process = SERVER.Process(
        target=importlib.import_module(HERE).work_on_a_small_disk, daemon=True,
        args=(list(map(str, words)), str(disk), str(tmp_path / "screen"), str(report)),
    )  # fmt: skip
    process.start()
    assert end(process) == 0
    *failures, (status, said, there) = json.loads(report.read_text())
    assert status == 0 and there == ["cache"], said
    assert files(tmp_path / "made") == files(cache)
    said = [text.splitlines()[-1] for _, text, _ in failures]
    assert all(there == ["cache.part"] or there == [] for *_, there in failures)
    assert "cache needs" in said[0] and "make room, lower --top-k" in said[0]
    assert any(line.endswith("No space left on device") for line in said)
    assert all(line.startswith("dad-cache-teacher: error: ") for line in said)


# -- refused ---------------------------------------------------------------------------------


def test_finished_with_the_same_settings_nothing_is_done(made, cache, capsys):
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    make(made, cache)
    assert "is there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before


OTHERS = {
    "top_k": (4, "--top-k was 5, is 4"),
    "temperature": (2.0, "--temperature was 1.0, is 2.0"),
    "precision": ("float16", "--precision was float32, is float16"),
    "splits": (["valid"], "--splits was .*the data changed|the data changed.*--splits was"),
    "batch_tokens": (100, "--batch-tokens was 2048, is 100"),
    "shard_sentences": (9, "--shard-sentences was 8, is 9"),
    "compute_type": ("float16", "--compute-type was float32, is float16"),
    "teachers": (["teacher2"], "the teacher changed"),
    "data": ("domain", "the data changed"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_than_those_of_a_cache_are_refused_by_name(made, cache, name):
    value, message = OTHERS[name]
    with pytest.raises(FileExistsError, match=f"({message}).*--overwrite"):
        make(made, cache, **{name: value})


def test_other_settings_than_those_of_an_unfinished_run_are_refused_by_name(made, tmp_path):
    out = tmp_path / "cache"
    assert end(start(made, out, 25)) == -9
    before = kept(out)
    with pytest.raises(FileExistsError, match="was interrupted there with .*--top-k was 5, is 4"):
        make(made, out, top_k=4)
    assert kept(out) == before and before
    make(made, out, top_k=4, overwrite=True)
    assert TeacherCache(out).top_k == 4


def test_an_edited_cache_is_found_out_by_the_command_and_overwritten_where_wanted(
    made, cache, tmp_path
):
    out = tmp_path / "cache"
    shutil.copytree(cache, out)
    content = bytearray((out / "train.000001.lprobs.npy").read_bytes())
    content[-2] ^= 1
    (out / "train.000001.lprobs.npy").write_bytes(content)
    with pytest.raises(FileExistsError, match="its files were changed after they were made"):
        make(made, out)
    make(made, out, overwrite=True)
    assert files(out) == files(cache)


@pytest.mark.parametrize("settings, message", [
    ({"top_k": 0}, "--top-k is 1 or more, not 0"),
    ({"top_k": 999}, "--top-k 999 is more than the 31. entries"),
    ({"temperature": 0}, "--temperature is a number above 0, not 0"),
    ({"temperature": float("nan")}, "--temperature is a number above 0, not nan"),
    ({"temperature": float("inf")}, "--temperature is a number above 0, not inf"),
    ({"precision": "int8"}, "--precision is one of float32, float16, not int8"),
    ({"compute_type": "int8"}, "--compute-type is one of float32, .* not int8"),
    ({"device": "tpu"}, "--device is one of auto, cpu, cuda, not tpu"),
    ({"batch_tokens": 0}, "--batch-tokens is 1 or more, not 0"),
    ({"shard_sentences": 0}, "--shard-sentences is 1 or more, not 0"),
    ({"splits": ["train", "train"]}, "--splits takes different names .*'train,train'"),
    ({"splits": [""]}, "--splits takes"),
    ({"splits": ["dev"]}, "dev.de-en.de.bin is missing, so .* has no split 'dev'"),
    ({"data": "foreign"}, "trained with another vocabulary .*dad-generate"),
    ({"teachers": ["nobody"]}, "nobody"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_computed(made, tmp_path, settings, message):
    with pytest.raises((ValueError, OSError), match=message):
        make(made, tmp_path / "cache", **settings)
    assert not (tmp_path / "cache").exists() and not kept(tmp_path / "cache")


def test_a_whole_dictionary_can_be_cached(made, tmp_path):
    entries = len(task_of(made).target_dictionary)
    make(made, tmp_path / "cache", top_k=entries, splits=["valid"])
    indices, lprobs = TeacherCache(tmp_path / "cache").split("valid")[0]
    assert all(sorted(row) == list(range(entries)) for row in indices.tolist())
    np.testing.assert_allclose(np.exp(lprobs.astype(float)).sum(axis=1), 1, atol=1e-5)


def test_a_teacher_with_too_few_positions_is_refused_and_the_sentence_named(made, tmp_path):
    toy_model(tmp_path / "short", made / "ours", flags=["--max-target-positions", "8"])
    with pytest.raises(ValueError, match=r"sentence \d+ of train has \d+ target pieces.*takes 8"):
        make(made, tmp_path / "cache", teachers=[tmp_path / "short"])


# -- in training -----------------------------------------------------------------------------


@pytest.mark.parametrize("spoil, message", [
    (lambda made, cache: f"{made / 'nowhere'}", "teacher cache .*nowhere is missing"),
    (lambda made, cache: f"{cache}:{cache.parent / 'foreign-cache'}", "with another vocabulary"),
], ids=["missing", "vocabulary"])  # fmt: skip
def test_a_cache_that_does_not_fit_is_refused_before_training(made, cache, tmp_path, spoil,
                                                              message):  # fmt: skip
    if not (made / "foreign-cache").exists():
        toy_model(made / "teacher3", made / "theirs")
        make(made, made / "foreign-cache", teachers=["teacher3"], data="foreign")
    task = task_of(made, teacher_cache=spoil(made, cache))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        task.load_dataset("valid")


@pytest.fixture(scope="module")
def domain_cache(made):
    make(made, made / "domain-cache", data="domain")
    return made / "domain-cache"


def losses(finished):
    assert finished.status == 0, finished.output
    entries = finished.entries("train_inner"), finished.entries("valid")
    names = ("loss", "nll_loss", "teacher_kl", "teacher_agreement")
    found = [
        float(entry.get(name, entry.get(f"valid_{name}")))
        for kind in entries for entry in kind for name in names
    ]  # fmt: skip
    return found, [len(kind) for kind in entries]


def test_fairseq_train_learns_the_same_from_the_cache_as_from_the_teacher(
    made, cache, domain_cache, tmp_path
):
    """Workers, a mixture with weights and slices; caches shifted by a sentence would show."""
    flags = ("--mixture", f"{made / 'general'}=1.5,{made / 'domain'}=1", "--epoch-fraction", 0.5,
             "--max-epoch", 2, "--lr", 0.01, "--valid-beam", 0, "--num-workers", 2,
             "--criterion", "word_distillation", "--teacher-weight", 0.9, "--update-freq", 2,
             "--max-tokens", 150, "--left-pad-target")  # fmt: skip
    online = losses(train(made / "general", tmp_path / "online", *flags, "--teacher",
                          made / "teacher1", "--teacher-top-k", 5))  # fmt: skip
    cached = losses(train(made / "general", tmp_path / "cached", *flags, "--teacher-cache",
                          f"{domain_cache}:{cache}"))  # fmt: skip
    assert cached[1] == online[1] and cached[1][0] >= 4 and cached[1][1] == 2
    np.testing.assert_allclose(cached[0], online[0], atol=2e-3, rtol=0)  # three digits are logged


def test_training_on_other_data_than_that_of_the_cache_is_refused(made, cache, tmp_path):
    done = train(made / "domain", tmp_path, "--teacher-cache", cache, "--max-update", 1,
                 "--lr", 0.01, "--valid-beam", 0, "--criterion", "word_distillation")  # fmt: skip
    assert done.status != 0 and "begin training" not in done.output
    assert "no cache of --teacher-cache has the teacher's distributions" in done.output


def test_a_cache_that_the_criterion_would_not_read_is_refused(made, cache, tmp_path):
    done = train(made / "general", tmp_path, "--teacher-cache", cache, "--max-update", 1,
                 "--lr", 0.01)  # fmt: skip
    assert done.status != 0 and not list(tmp_path.glob("checkpoint*.pt"))
    assert "--teacher-cache is given and --criterion label_smoothed_cross_entropy does not" in (
        done.output
    )


def test_validation_without_a_cache_is_told_with_the_command_that_makes_it(made, tmp_path, caplog):
    make(made, tmp_path / "cache", splits=["train"])
    task = task_of(made, teacher_cache=str(tmp_path / "cache"))
    with caplog.at_level("WARNING"):
        task.load_dataset("valid")
    assert "dad-cache-teacher --teacher MODEL --data" in caplog.text
    dataset = task.dataset("valid")
    assert "teacher" not in dataset.collater([dataset[0]])


def test_a_kept_model_does_not_remember_its_cache(made, cache, tmp_path):
    """Otherwise a MODEL folder could not be used where the cache is gone."""
    from fairseq_plugins.checkpoints import load_checkpoint
    from fairseq_plugins.export.weights import keep_weights

    relative = tmp_path / "cache"
    relative.symlink_to(cache)
    done = train(made / "general", tmp_path / "run", "--teacher-cache", relative, "--max-update", 1,
                 "--lr", 0.01, "--valid-beam", 0, "--criterion", "word_distillation")  # fmt: skip
    assert done.status == 0, done.output
    keep_weights(tmp_path / "run" / "checkpoint_last.pt", made / "ours", tmp_path / "model")
    state = load_checkpoint(tmp_path / "model" / "model.pt")
    assert state["cfg"]["task"]["teacher_cache"] is None
