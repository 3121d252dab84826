"""recipes/slurm: what the jobs call, with stand-ins for Slurm, Ray and the chain."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAIN = "bash recipes/de-en/run.sh --work runs/de-en --general my/general".split()
JOB = {
    "SLURM_JOB_ID": "25007", "SLURM_JOB_NAME": "dad-teacher", "SLURM_JOB_NODELIST": "gpu[03-04]",
    "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32",
    "SLURM_ARRAY_TASK_ID": "1",
}  # fmt: skip
STAND_INS = {
    "scontrol": '[[ $1 != show ]] || printf "gpu03\\ngpu04\\n"',
    "sbatch": "echo $(( 100 + $(wc -l < $CALLS) ))",
    "srun": 'while [[ $1 != -- ]]; do shift; done; shift; "$@"',
    "dad-run": "",
}
RUN = """#!/bin/bash
printf '%q ' run.sh "$@" >> $CALLS; echo >> $CALLS
printf '%s\\n' "${DAD_LAUNCHER-}" "${DAD_RAY-}" "${SRUN_CPUS_PER_TASK-}" > $CALLS.environment
if [[ ${SLOW-} ]]; then
  trap 'kill $!; echo stopped >> $CALLS; exit 143' TERM
  touch $CALLS.ready
  sleep 60 & wait
fi
exit ${STATUS-0}
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of recipes/slurm beside a stand-in recipe, and stand-in commands."""
    recipes = tmp_path / "recipes"
    shutil.copytree(ROOT / "recipes" / "slurm", recipes / "slurm")
    shutil.copy(ROOT / "recipes" / "command_line.sh", recipes)
    (recipes / "bootstrap.sh").touch()
    (recipes / "de-en").mkdir()
    (recipes / "de-en" / "run.sh").write_text(RUN)
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, deed in STAND_INS.items():
        (commands / name).write_text(
            f'#!/bin/bash\nprintf "%q " {name} "$@" >> $CALLS; echo >> $CALLS\n{deed}\n'
        )
        (commands / name).chmod(0o755)
    (tmp_path / "calls").touch()
    return tmp_path


def start(checkout, script, *words, **more):
    environment = {
        "PATH": f"{checkout / 'commands'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(checkout),
        "CALLS": str(checkout / "calls"), **JOB, **more,
    }  # fmt: skip
    # Slurm runs a copy of the script, from elsewhere
    copied = shutil.copy(checkout / "recipes" / "slurm" / script, checkout / "slurm_script")
    return subprocess.Popen(
        ["bash", copied, *words], env=environment, cwd="/", text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def calls(checkout):
    called = [shlex.split(line) for line in (checkout / "calls").read_text().splitlines()]
    return [call for call in called if call[:2] != ["scontrol", "show"]]


def job(checkout, script, *words, **more):
    process = start(checkout, script, "recipes/slurm/experiment.sh", *words, **more)
    said = process.communicate()[1]
    return process.returncode, said, calls(checkout)


def environment_of_chain(checkout):
    """DAD_LAUNCHER, DAD_RAY, SRUN_CPUS_PER_TASK as the chain saw them."""
    return (checkout / "calls.environment").read_text().splitlines()


def ends_with(call, *words):
    return call[-len(words) :] == list(words)


def test_the_teacher_is_trained_by_torchrun_on_all_machines(checkout):
    status, said, (call,) = job(checkout, "teacher.sbatch")
    assert status == 0, said
    assert call[0] == "run.sh"
    assert ends_with(call, "--jobs", "1", "--stage", "4", "--stop-stage", "4")
    launcher, ray, cores = environment_of_chain(checkout)
    assert launcher == (
        "srun --kill-on-bad-exit=1 torchrun --nnodes 2 --nproc-per-node 4 --rdzv-id 25007 "
        "--rdzv-backend c10d --rdzv-endpoint gpu03:25007"
    )
    assert (ray, cores) == ("", "32")
    # and train.sh takes it for 8 workers
    done = subprocess.run(
        ["bash", ROOT / "recipes" / "stages" / "train.sh", "--data", "d", "--out", "o", "--size",
         "large", "--max-tokens", "8192", "--dry-run"],
        env={**os.environ, "DAD_LAUNCHER": launcher}, capture_output=True, text=True,
    )  # fmt: skip
    assert "worker.sh 8 fairseq-train" in done.stdout, done.stderr


def test_distillation_runs_on_a_ray_cluster_of_the_job(checkout):
    status, said, (cluster, call) = job(checkout, "distil.sbatch")
    assert status == 0, said
    assert cluster[:13] == (
        "srun --kill-on-bad-exit=1 ray symmetric-run --address gpu03:25007 --min-nodes 2 "
        "--num-gpus 4 --num-cpus 32 --"
    ).split()  # fmt: skip
    assert ends_with(call, "--jobs", "1", "--stage", "5", "--stop-stage", "5")
    assert environment_of_chain(checkout)[:2] == ["", "gpu03:25007"]


def test_a_job_of_the_array_makes_the_stages_of_its_domain(checkout):
    status, said, (call,) = job(checkout, "domains.sbatch")
    assert status == 0, said
    assert call == "dad-run --work runs/de-en --first 7 --domain it".split()


@pytest.mark.parametrize(
    "script, words, end",
    [
        ("text.sbatch", [], ["--stop-stage", "3"]),
        ("node.sbatch", ["--stage", "6"], ["--configuration", "1,4,7,9", "--stage", "6"]),
        ("node.sbatch", [], ["--configuration", "1,4,7,9"]),
    ],
)  # fmt: skip
def test_the_rest_runs_on_one_machine(checkout, script, words, end):
    status, said, (call,) = job(checkout, script, *words)
    assert status == 0, said
    assert ends_with(call, *end)
    assert environment_of_chain(checkout)[:2] == ["", ""]


def test_a_chain_that_fails_fails_the_job(checkout):
    status, _, called = job(checkout, "node.sbatch", STATUS="3")
    assert status == 3 and [call[0] for call in called] == ["run.sh"]


@pytest.mark.parametrize("restarts, status, last", [("0", 0, "scontrol"), ("50", 1, "stopped")])
def test_shortly_before_its_end_a_job_stops_the_chain_and_is_queued_again(
    checkout, restarts, status, last
):
    process = start(checkout, "node.sbatch", "recipes/slurm/experiment.sh", SLOW="1",
                    SLURM_RESTART_COUNT=restarts)  # fmt: skip
    for _ in range(500):
        if (checkout / "calls.ready").exists():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == status, said
    assert [call[0] for call in calls(checkout)][1:] == ["stopped", "scontrol"][: 2 - status]
    assert calls(checkout)[-1][0] == last
    if not status:
        assert calls(checkout)[-1] == ["scontrol", "requeue", "25007"]


def test_a_job_without_an_experiment_says_what_to_type(checkout):
    process = start(checkout, "node.sbatch")
    said = process.communicate()[1]
    assert process.returncode == 1 and "name the experiment" in said


def test_jobs_wait_for_those_before_them(checkout):
    done = subprocess.run(
        ["bash", "recipes/slurm/submit.sh", "recipes/slurm/experiment.sh"], cwd=checkout, text=True,
        capture_output=True, env={"PATH": f"{checkout / 'commands'}:{os.environ['PATH']}",
                                  "CALLS": str(checkout / "calls")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    submitted = calls(checkout)
    names = [re.search(r"--job-name=dad-(\w+)", " ".join(call))[1] for call in submitted]
    assert names == ["text", "teacher", "distil", "students", "domains", "rest"]
    waits = [[word for word in call if word.startswith("--dependency")] for call in submitted]
    assert waits == [[], *([f"--dependency=afterok:{100 + n}"] for n in range(1, 6))]
    flags = [set(call) & {"--nodes=2", "--nodes=4", "--array=0-1"} for call in submitted]
    assert flags == [set(), {"--nodes=2"}, {"--nodes=4"}, set(), {"--array=0-1"}, set()]
    experiment = str(checkout / "recipes" / "slurm" / "experiment.sh")
    for call in submitted:
        script = next(word for word in call if word.endswith(".sbatch"))
        assert Path(script).is_file() and call[call.index(script) + 1] == experiment


@pytest.mark.parametrize("script", sorted((ROOT / "recipes" / "slurm").glob("*.sbatch")))
def test_every_job_can_be_queued_again_and_hears_of_its_end(script):
    settings = re.findall(r"^#SBATCH (\S+)", script.read_text(), re.M)
    assert {"--requeue", "--signal=B:USR1@180", "--open-mode=append"} <= set(settings)
    assert "go_on " in script.read_text()
