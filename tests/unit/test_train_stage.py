"""recipes/stages/train.sh: where it starts, precision, workers, which checkpoint is the model."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

STAGE = Path(__file__).resolve().parents[2] / "recipes" / "stages" / "train.sh"


def commands(*words):
    """Status and words of what train.sh would run, and what it says."""
    done = subprocess.run(
        ["bash", STAGE, "--data", "data", "--out", "out", "--size", "tiny", "--dry-run", *words],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, re.sub("^#.*", "", done.stdout).split(), done.stderr


def value(words, flag):
    return words[words.index(flag) + 1] if flag in words else None


@pytest.mark.parametrize(
    "wish, epochs, best, taken",
    [
        (None, None, None, None),
        ("best:3", None, "3", "best:3"),
        ("last:5", "5", None, "last:5"),
    ],
)
def test_fairseq_keeps_the_checkpoints_that_are_averaged(wish, epochs, best, taken):
    status, words, _ = commands(*(["--average", wish] if wish else []))
    assert status == 0
    assert value(words, "--keep-last-epochs") == epochs
    assert ("--no-epoch-checkpoints" in words) is (epochs is None)
    assert value(words, "--keep-best-checkpoints") == best
    assert value(words, "--average") == taken
    if wish:
        assert value(words, "--checkpoints") == "out/checkpoints" and "--checkpoint" not in words
    else:
        assert value(words, "--checkpoint") == "out/checkpoints/checkpoint_best.pt"


@pytest.mark.parametrize("wish", ["best", "best:0", "first:3", "5", "last:x"])
def test_another_average_is_refused_before_training(wish):
    status, words, said = commands("--average", wish)
    assert status != 0 and not words
    assert f"--average is best:N or last:N, for example best:3, not '{wish}'" in said


# -- where the weights come from -----------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, task, finetuned",
    [
        ([], "sequence_distillation", None),
        (["--init", "general"], "domain_adaptation", "general/model.pt"),
        (["--from-model", "theirs"], "sequence_distillation", "theirs/model.pt"),
        (["--continue", "last.pt"], "sequence_distillation", None),
    ],
)
def test_only_init_is_adapting(flags, task, finetuned):
    status, words, _ = commands(*flags)
    assert status == 0
    words = words[words.index("fairseq-train") :]
    assert value(words, "--task") == task
    assert value(words, "--finetune-from-model") == finetuned


def test_what_is_gone_on_with_is_checked_by_the_very_words_of_the_training():
    _, plain, _ = commands("--", "--clip-norm", "2")
    _, words, _ = commands("--continue", "last.pt", "--", "--clip-norm", "2")
    training = plain[1 : plain.index("dad-keep-weights")]
    assert words[: len(training) + 6] == [
        "dad-hand-over", "--continue", "last.pt", "--out", "out/checkpoints/checkpoint_last.pt",
        "--", *training,
    ]  # fmt: skip
    assert words[len(training) + 6 :] == plain


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--init", "a", "--from-model", "b"], "--init --from-model"),
        (["--continue", "a", "--from-teacher", "first=b"], "--continue --from-teacher"),
        (["--from-model", "a", "--continue", "b"], "--from-model --continue"),
        (["--init", "a", "--from-teacher", "first=b"], "--init --from-teacher"),
    ],
)
def test_weights_come_from_one_place(flags, named):
    status, words, said = commands(*flags)
    assert status != 0 and not words
    assert f"{named} all say where the weights come from; keep one of them" in said


HANDING_OVER = {
    "dad-hand-over": 'echo handed over; mkdir -p out/checkpoints; echo theirs > "$4"',
    # killed after its first epoch, and done when it is called again
    "fairseq-train": "cat out/checkpoints/checkpoint_last.pt; "
    "echo ours > out/checkpoints/checkpoint_last.pt; [ -e killed ] || { touch killed; exit 137; }",
    "dad-keep-weights": "mkdir -p out/kept; touch out/kept/model.pt",
}


def test_a_checkpoint_is_handed_over_once(tmp_path):
    for name, script in HANDING_OVER.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    said = []
    for status in (137, 0, 0):
        done = subprocess.run(
            ["bash", STAGE, "--data", "data", "--out", "out", "--size", "tiny", "--continue", "x"],
            cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        said.append(done.stdout.split("\n")[:-1])
    assert said == [["handed over", "theirs"], ["ours"], []]


# -- precision and workers, with stand-ins for all that train.sh calls ---------------------------

STAND_INS = {
    # what data_prep.pipeline.device would say; it fails where nobody should ask
    "python": '[[ $DEVICE ]] && echo "$DEVICE"',
    "fairseq-train": 'mkdir -p out/checkpoints; touch out/checkpoints/checkpoint_last.pt',
    "torchrun": "",
    "srun": "",
    "dad-keep-weights": "mkdir -p out/kept; echo weights > out/kept/model.pt",
}
A100S = "4\tbf16\tthe GPU has it in hardware (A100)"
T4 = "1\tfp16\tthe GPU has no bf16 in hardware (T4)"
NONE = "0\tfp32\tthere is no GPU"


@pytest.fixture
def train(tmp_path):
    """Gives ``run(*words)``: train.sh in an empty folder, with recorded calls."""
    commands, calls = tmp_path / "commands", tmp_path / "calls"
    commands.mkdir()
    for name, deed in STAND_INS.items():
        stand_in = commands / name
        stand_in.write_text(f'#!/bin/bash\nprintf "%q " {name} "$@" >> {calls}\n'
                            f"echo >> {calls}\n{deed}\n")  # fmt: skip
        stand_in.chmod(0o755)

    def run(*words, device=NONE, **environment):
        calls.write_text("")
        done = subprocess.run(
            ["bash", STAGE, "--data", "data", "--out", "out", "--size", "tiny", *words],
            capture_output=True, text=True, cwd=tmp_path,
            env={"PATH": f"{commands}:{os.environ['PATH']}", "DEVICE": device, **environment},
        )  # fmt: skip
        called = [shlex.split(line) for line in calls.read_text().splitlines()]
        return Trained(done, [call for call in called if call[0] != "python"], tmp_path / "out")

    return run


class Trained:
    def __init__(self, done, calls, out):
        self.status, self.said, self.calls, self.out = done.returncode, done.stderr, calls, out
        self.printed = done.stdout

    @property
    def training(self):
        return self.calls[0]

    @property
    def precision(self):
        flags = [word for word in self.training if word in ("--fp16", "--bf16")]
        return flags or ["fp32"]

    @property
    def record(self):
        return (self.out / "command.txt").read_text()

    def shared(self):
        """Workers, and the last --max-tokens and --update-freq that they get."""
        numbers = {flag: int(number) for flag, number in zip(self.training, self.training[1:])
                   if flag in ("--max-tokens", "--update-freq")}  # fmt: skip
        workers = re.search(r"worker\.sh (\d+) fairseq-train", " ".join(self.training))
        return int(workers[1]) if workers else 1, *numbers.values()


@pytest.mark.parametrize(
    "device, words, flags, words_of_it",
    [
        (A100S, [], ["--bf16"], "bf16, since the GPU has it in hardware (A100)"),
        (T4, [], ["--fp16"], "fp16, since the GPU has no bf16 in hardware (T4)"),
        (NONE, [], ["fp32"], "fp32, since there is no GPU"),
        (A100S, ["--", "--cpu"], ["fp32"], "fp32, since --cpu is asked for"),
        (A100S, ["--precision", "fp16"], ["--fp16"], None),
        (A100S, ["--precision", "fp32"], ["fp32"], None),
        (A100S, ["--", "--fp16"], ["--fp16"], None),
    ],
)
def test_the_precision_is_that_of_the_device_unless_someone_says_which(
    train, device, words, flags, words_of_it
):
    run = train(*words, device=device)
    assert run.status == 0 and run.precision == flags
    if words_of_it:
        assert f"train.sh: precision {words_of_it}\n" in run.said
        assert run.record.split("\n")[1:] == [f"# precision: {words_of_it}", ""]
    else:
        assert "precision" not in run.said and run.record.count("\n") == 1


def begin(folder, command):
    (folder / "out" / "checkpoints").mkdir(parents=True)
    (folder / "out" / "checkpoints" / "checkpoint_last.pt").touch()
    (folder / "out" / "command.txt").write_text(command)


@pytest.mark.parametrize(
    "begun, device, flags",
    [
        ("fairseq-train data --bf16 --seed 1\n# precision: bf16, since X\n", T4, ["--bf16"]),
        ("fairseq-train data --fp16 --seed 1\n# precision: fp16, since X\n", A100S, ["--fp16"]),
        ("fairseq-train data --seed 1\n# precision: fp32, since X\n", A100S, ["fp32"]),
        ("fairseq-train data --seed 1\n", A100S, ["fp32"]),  # before there was auto
    ],
)
def test_a_training_goes_on_in_the_precision_that_it_began_with(
    train, tmp_path, begun, device, flags
):
    begin(tmp_path, begun)
    run = train(device=device)
    assert run.precision == flags
    assert "with which this training began" in run.said
    assert run.record.split("\n")[1:] == begun.split("\n")[1:]


def test_a_training_without_a_checkpoint_has_not_begun(train, tmp_path):
    begin(tmp_path, "fairseq-train data --fp16 --seed 1\n# precision: fp16, since X\n")
    (tmp_path / "out" / "checkpoints" / "checkpoint_last.pt").unlink()
    assert train(device=A100S).precision == ["--bf16"]


def test_half_precision_does_not_go_on_without_a_gpu(train, tmp_path):
    begin(tmp_path, "fairseq-train data --bf16 --seed 1\n")
    run = train(device=NONE)
    assert run.status != 0 and not run.calls
    assert "began in bf16 on a GPU, and there is none here" in run.said and "rm -r out" in run.said


@pytest.mark.parametrize(
    "launcher, tokens, frequency, expected",
    [
        ("torchrun --nproc-per-node 2", 4096, 2, (2, 4096, 1)),
        ("torchrun --nproc-per-node=4", 4096, 8, (4, 4096, 2)),
        ("torchrun --nproc_per_node 4", 4096, 1, (4, 1024, 1)),
        ("torchrun --nproc-per-node 2", 4096, 3, (2, 3072, 2)),
        ("srun torchrun --nnodes 2 --nproc-per-node 4", 8192, 2, (8, 2048, 1)),
        ("srun torchrun --nnodes=3 --rdzv-backend c10d", 4096, 3, (3, 4096, 1)),
        ("torchrun --standalone", 500, 2, (1, 500, 2)),
        ("torchrun --nproc-per-node 2", 500, 2, (2, 500, 1)),
    ],
)
def test_workers_share_the_batch_of_one(train, launcher, tokens, frequency, expected):
    run = train("--max-tokens", str(tokens), "--update-frequency", str(frequency),
                DAD_LAUNCHER=launcher)  # fmt: skip
    assert run.shared() == expected
    workers, own_tokens, own_frequency = expected
    assert workers * own_tokens * own_frequency == tokens * frequency
    assert " ".join(run.training).startswith(f"{launcher} --no-python /")
    assert f"--max-tokens {tokens} --update-freq {frequency} " in run.record  # as one would have it
    assert "torchrun" not in run.record
    assert [call[0] for call in run.calls[1:]] == ["dad-keep-weights"]


@pytest.mark.parametrize(
    "launcher, words, complaint",
    [
        ("torchrun --nproc-per-node 8", [], "gives 8 workers 512 each"),
        ("torchrun --nproc-per-node gpu", [], "--nproc-per-node gpu; the batch is divided"),
        ("torchrun --nnodes 1:4", [], "--nnodes 1:4"),
        ("torchrun --nproc-per-node", [], "write numbers"),
        ("torchrun --nproc-per-node 2", ["--", "--update-freq", "1"], "do not set fairseq's own"),
        ("torchrun --nproc-per-node 2", ["--", "--max-tokens=9"], "do not set fairseq's own"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(train, launcher, words, complaint):
    run = train(*words, DAD_LAUNCHER=launcher)
    assert run.status != 0 and not run.calls
    assert complaint in run.said


@pytest.mark.parametrize(
    "device, tokens, expected",
    [
        (A100S, 4096, (4, 1024, 1)),
        (A100S, 2048, (2, 1024, 1)),  # four would get too little each
        (A100S, 1200, (1, 1200, 1)),
        (T4, 4096, (1, 4096, 1)),
    ],
)
def test_all_visible_gpus_work_as_far_as_the_batch_goes(train, device, tokens, expected):
    run = train("--max-tokens", str(tokens), device=device)
    assert run.shared() == expected
    gpus = int(device.split("\t")[0])
    if gpus > 1:
        launcher = ["torchrun", "--standalone", "--nproc-per-node", str(expected[0])]
        assert run.training[:4] == launcher
        assert f"train.sh: {expected[0]} workers with batches of {expected[1]} tokens" in run.said
    else:
        assert run.training[0] == "fairseq-train"


def test_who_only_looks_needs_no_python(train):
    run = train("--dry-run", device="")
    assert run.status == 0 and not run.calls and not run.said
    assert run.printed.startswith("# precision: bf16, fp16 or fp32, as the device has it\n")


# -- worker.sh -----------------------------------------------------------------------------------

TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}


def work(folder, *words, **environment):
    command = folder / "fairseq-train"
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)
    return subprocess.run(
        ["bash", STAGE.with_name("worker.sh"), *words], capture_output=True, text=True,
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
    )  # fmt: skip


def test_a_worker_gets_its_numbers_from_torchrun(tmp_path):
    words = work(tmp_path, "2", "fairseq-train", "data", **TORCHRUN).stdout.split()
    assert value(words, "--distributed-world-size") == "2"
    assert value(words, "--distributed-rank") == "1" and value(words, "--device-id") == "0"
    assert value(words, "--distributed-init-method") == "env://"
    assert "--distributed-no-spawn" in words and value(words, "--ddp-backend") is None


def test_workers_on_the_cpu_talk_by_gloo(tmp_path):
    words = work(tmp_path, "2", "fairseq-train", "data", "--cpu", **TORCHRUN).stdout.split()
    assert value(words, "--distributed-backend") == "gloo"
    assert value(words, "--ddp-backend") == "legacy_ddp"


@pytest.mark.parametrize(
    "environment, complaint",
    [
        ({**TORCHRUN, "WORLD_SIZE": "8"}, "divided the batch by 2 workers, but 8 were started"),
        ({}, "is started by torchrun"),
    ],
)
def test_a_worker_that_does_not_fit_stops(tmp_path, environment, complaint):
    done = work(tmp_path, "2", "fairseq-train", "data", **environment)
    assert done.returncode != 0 and not done.stdout
    assert complaint in done.stderr
