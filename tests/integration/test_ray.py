"""--engine ray: a cluster of several nodes on this machine, one lost in mid-run."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import ray
from ray import cluster_utils

from data_prep.clean import clean
from data_prep.cleaning import blocks
from data_prep.cluster import on_cluster
from fairseq_plugins.generation.backends import choose
from fairseq_plugins.generation.decoding import Decoding
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.generation.ray_engine import Parcel, Worker, connect
from tests.fixtures.bitext import TRAIN, write_folder
from tests.fixtures.faults import die_once
from tests.fixtures.models import (
    read_text,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    toy_vocabulary(folder / "vocabulary")
    return toy_model(folder / "model", folder / "vocabulary")


@pytest.fixture(scope="module")
def cluster():
    """A head without room for work, and two nodes with room for one worker each."""
    os.environ["PYTHONPATH"] = str(ROOT)  # what the workers import
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    made.shutdown()


def start(model, source, out, cluster, *flags):
    words = [sys.executable, "-m", "fairseq_plugins.generation.generate", "--model", model,
             "--source", source, "--out", out, "--engine", "ray", "--address", cluster.address,
             "--shard-lines", 5, "--batch-tokens", 20, *flags]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, words)), env=environment, stderr=subprocess.PIPE, text=True
    )


def test_a_node_that_is_lost_takes_no_line_with_it(model, cluster, tmp_path):
    lines = toy_lines(600, seed=7) + [""]
    source, out = write_text(tmp_path / "source", lines), tmp_path / "out"
    generate([model], source, tmp_path / "here", backend="fairseq", shard_lines=5, batch_tokens=20,
             workers=1,
             n_best=2)  # fmt: skip
    run = start(model, source, out, cluster, "--backend", "fairseq", "--n-best", 2)
    part = tmp_path / "out.part"
    while run.poll() is None and len(list(part.glob("0*.json"))) < 10:
        time.sleep(0.01)
    assert run.poll() is None, run.communicate()[1]
    cluster.remove_node(cluster.nodes.pop(0), allow_graceful=False)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0, said
    assert "a worker on the cluster was lost" in said
    assert out.read_bytes() == (tmp_path / "here").read_bytes()
    for suffix in (".nbest", ".ledger.tsv"):
        ours = (tmp_path / f"out{suffix}").read_bytes()
        assert ours == (tmp_path / f"here{suffix}").read_bytes()
    assert not part.exists()


def test_ctranslate2_on_a_cluster_gives_the_same_bytes(model, cluster, tmp_path):
    source = write_text(tmp_path / "source", toy_lines(60, seed=8))
    generate([model], source, tmp_path / "here", shard_lines=5, batch_tokens=20)
    run = start(model, source, tmp_path / "out", cluster)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0, said
    assert read_text(tmp_path / "out") == read_text(tmp_path / "here")


@pytest.fixture(scope="module")
def connected(cluster):
    """This process is connected to the cluster; it is let go of at the end."""
    yield cluster.address
    ray.shutdown()


def test_cleaning_on_a_cluster_gives_the_same_bytes(connected, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 300)  # so that there are a few of them
    raw, langs = write_folder(tmp_path / "raw", train=[*TRAIN, ("", "a"), TRAIN[3]]), ("de", "en")
    clean(raw, langs, tmp_path / "here", workers=1)
    clean(raw, langs, tmp_path / "there", engine="ray", address=connected)
    for path in (tmp_path / "here").iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


def test_a_batch_of_a_lost_worker_goes_to_another(connected, tmp_path):
    with on_cluster(connected) as apply:
        found = list(apply(partial(die_once, str(tmp_path / "died")), range(6)))
    assert found == list(range(6))
    assert (tmp_path / "died").exists()


def test_what_a_worker_cannot_do_is_told(connected):
    with on_cluster(connected) as apply:
        with pytest.raises(ValueError, match="a worker on the cluster stopped: invalid literal"):
            list(apply(int, ["1", "x"]))


def test_an_address_that_does_not_answer_is_an_error(model, tmp_path):
    source = write_text(tmp_path / "source", ["ba"])
    with pytest.raises(ValueError, match="no Ray cluster answers at --address 127.0.0.1:9 "):
        generate([model], source, tmp_path / "out", engine="ray", address="127.0.0.1:9")
    with pytest.raises(ValueError, match="no Ray cluster answers at --address nonsense "):
        generate([model], source, tmp_path / "out", engine="ray", address="nonsense")
    assert not list(tmp_path.glob("out*"))


def test_without_ray_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install -r requirements-ray.txt"):
        connect("auto")


def test_a_worker_decodes_one_shard_at_a_time(model, tmp_path):
    """fairseq's generator holds the length limit of a batch, which another would change."""
    choice = choose([open_model(model)], backend="fairseq")
    decoding = Decoding(batch_tokens=20)
    worker = Worker(Parcel.pack(choice, {}, decoding=decoding, longest=100, cut=True, threads=1))
    lines = [toy_lines(5, seed=seed, longest=length) for seed in range(12) for length in (2, 20)]
    alone = [worker.decode(number, part, None) for number, part in enumerate(lines)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(worker.decode, range(len(lines)), lines, [None] * len(lines)))
    assert together == alone
