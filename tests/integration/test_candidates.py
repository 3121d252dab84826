"""dad-generate's candidates: n-best lists, samples, and lines that the decoder gives up on."""

import itertools
import signal

import pytest

from fairseq_plugins.generation import ctranslate2_backend
from fairseq_plugins.generation.decoding import DecodingFailed, Sampling
from fairseq_plugins.generation.generate import generate
from fairseq_plugins.generation.nbest import Candidate, read_nbest
from fairseq_plugins.generation.teacher import Shard
from tests.fixtures.models import (
    read_text,
    toy_lines,
    toy_model,
    toy_vocabulary,
    write_text,
)

BACKENDS = ["ctranslate2", "fairseq"]
LINES = toy_lines(30, seed=12) + [""]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("candidates")
    toy_vocabulary(folder / "vocabulary")
    return toy_model(folder / "model", folder / "vocabulary")


def candidates(model, folder, lines=LINES, name="out", **settings):
    """Candidates of every line, through files."""
    source = write_text(folder / f"{name}.src", lines)
    generate([model], source, folder / name, **{"workers": 1, **settings})
    found = list(read_nbest(folder / f"{name}.nbest"))
    assert read_text(folder / name) == [best.text for best, *_ in found]
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_line_has_n_candidates_and_the_best_is_the_translation(backend, model, tmp_path):
    found = candidates(model, tmp_path, backend=backend, n_best=4, shard_lines=7)
    assert [len(entry) for entry in found] == [4] * len(LINES)
    assert found[-1] == [Candidate("")] * 4  # of the empty line
    for entry in found[:-1]:
        scores = [candidate.normalised for candidate in entry]
        assert scores == sorted(scores, reverse=True) and scores[0] < 0
        assert len({candidate.text for candidate in entry}) > 1
    single = tmp_path / "single"
    generate([model], tmp_path / "out.src", single, backend=backend, beam=5, workers=1)
    wider = candidates(model, tmp_path, name="wider", backend=backend, beam=5, n_best=2)
    assert read_text(single) == [best.text for best, _ in wider]


@pytest.mark.parametrize("length_penalty", [1.0, 0.5])
def test_both_backends_rate_a_line_s_translations_alike(length_penalty, model, tmp_path):
    ours, theirs = (
        candidates(model, tmp_path, name=backend, backend=backend, n_best=4,
                   length_penalty=length_penalty)
        for backend in BACKENDS
    )  # fmt: skip
    compared = 0
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        twins = {(candidate.text, candidate.pieces): candidate for candidate in other}
        # CTranslate2 shares the probability of ending at once, which is forbidden, out among the
        # other first pieces; fairseq does not. So a line's scores differ by the same amount.
        differences = [
            candidate.log_prob - twins[candidate.text, candidate.pieces].log_prob
            for candidate in one
            if (candidate.text, candidate.pieces) in twins
        ]
        assert all(0 <= d == pytest.approx(differences[0], abs=0.01) for d in differences)
        compared += len(differences)
    assert compared >= 60


@pytest.mark.parametrize("backend", BACKENDS)
def test_drawing_from_one_piece_is_greedy(backend, model, tmp_path):
    source = write_text(tmp_path / "src", LINES)
    generate([model], source, tmp_path / "greedy", backend=backend, beam=1)
    generate([model], source, tmp_path / "drawn", backend=backend, sampling=Sampling(top_k=1))
    assert read_text(tmp_path / "drawn") == read_text(tmp_path / "greedy")


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_seeds_draw_equal_samples_whatever_the_workers(backend, model, tmp_path):
    draw = {"backend": backend, "n_best": 3, "shard_lines": 5}
    one, again, three, other = (
        candidates(model, tmp_path, name=f"{number}", workers=workers, **draw,
                   sampling=Sampling(seed=seed))
        for number, (workers, seed) in enumerate([(1, 7), (1, 7), (3, 7), (1, 8)])
    )  # fmt: skip
    assert one == again == three != other
    texts = [{candidate.text for candidate in entry} for entry in one[:-1]]
    assert sum(len(found) == 3 for found in texts) > len(texts) / 2  # they differ from each other
    shards = [texts[first : first + 5] for first in range(0, 30, 5)]
    assert all(a != b for a, b in itertools.combinations(shards, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shard_that_was_interrupted_is_drawn_anew(backend, model, tmp_path, monkeypatch):
    draw = {"backend": backend, "n_best": 2, "batch_tokens": 5, "sampling": Sampling(seed=3)}
    whole = candidates(model, tmp_path, name="whole", **draw)
    finish_batch, finished = Shard.finish_batch, []

    def interrupt(shard, *batch):
        finished.append(finish_batch(shard, *batch))
        if len(finished) == 3:
            signal.raise_signal(signal.SIGINT)

    source = tmp_path / "whole.src"
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shard, "finish_batch", interrupt)
        generate([model], source, tmp_path / "out", workers=1, **draw)
    signal.signal(signal.SIGINT, heeded)
    assert (tmp_path / "out.part" / "000000.partial.json").exists()
    generate([model], source, tmp_path / "out", workers=1, **draw)
    assert list(read_nbest(tmp_path / "out.nbest")) == whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_temperature_and_top_p_reach_the_sampling(backend, model, tmp_path):
    def mean_score(name, **settings):
        found = candidates(model, tmp_path, name=name, backend=backend, n_best=4,
                           sampling=Sampling(**settings))  # fmt: skip
        return sum(c.normalised for entry in found[:-1] for c in entry) / 120

    free = mean_score("free")
    assert mean_score("cold", temperature=0.3) > free < mean_score("nucleus", top_p=0.3)


def failing(monkeypatch, word):
    """Let CTranslate2 give up on every batch in which a piece occurs."""
    begin = ctranslate2_backend.CTranslate2Backend.begin

    def begin_or_fail(self, translator, sentences):
        if any(word in "".join(pieces) for pieces in sentences):
            raise DecodingFailed("out of memory")
        return begin(self, translator, sentences)

    monkeypatch.setattr(ctranslate2_backend.CTranslate2Backend, "begin", begin_or_fail)


def test_one_line_that_fails_takes_no_other_with_it(model, tmp_path, monkeypatch, capsys):
    lines = ["ba be bi", "ZZ", "ba be bo", ""]
    source = write_text(tmp_path / "src", lines)
    references = write_text(tmp_path / "references", ["1", "2", "3", "4"])
    generate([model], source, tmp_path / "whole", workers=1)
    whole = read_text(tmp_path / "whole")
    failing(monkeypatch, "<0x5A>")
    with pytest.raises(ValueError, match="gave up on line 2; .*--on-fail drop"):
        generate([model], source, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    record = generate([model], source, tmp_path / "out", workers=1, on_fail="drop")
    assert read_text(tmp_path / "out") == [whole[0], "", whole[2], ""]
    assert record["counts"]["failed"] == record["counts"]["dropped"] == 1
    assert read_text(tmp_path / "out.ledger.tsv")[1].startswith("2\tfailed\tdropped\t")
    assert "out.ledger.tsv" in record["outputs"]
    generate([model], source, tmp_path / "out", workers=1, on_fail="reference",
             references=references, overwrite=True)  # fmt: skip
    assert read_text(tmp_path / "out") == [whole[0], "2", whole[2], ""]


def test_references_go_line_by_line_with_the_source(model, tmp_path):
    source = write_text(tmp_path / "src", ["ba", "be"])
    references = write_text(tmp_path / "references", ["1"])
    with pytest.raises(ValueError, match="references has 1 lines and .*src 2"):
        generate([model], source, tmp_path / "out", references=references)


def test_outputs_that_are_no_longer_made_go_with_the_old_ones(model, tmp_path):
    candidates(model, tmp_path, n_best=2)
    assert (tmp_path / "out.ledger.tsv").exists()  # for the empty line
    source = write_text(tmp_path / "src", LINES[:-1])
    generate([model], source, tmp_path / "out", overwrite=True)
    names = sorted(path.name for path in tmp_path.glob("out*") if path.suffix != ".src")
    assert names == ["out", "out.manifest.json"]


def test_an_nbest_file_that_was_edited_is_noticed(model, tmp_path):
    candidates(model, tmp_path, n_best=2)
    with open(tmp_path / "out.nbest", "a") as file:
        file.write("99 ||| a ||| logprob= -1 pieces= 1 ||| -1\n")
    with pytest.raises(FileExistsError, match="its text was changed after it was made"):
        generate([model], tmp_path / "out.src", tmp_path / "out", n_best=2, workers=1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"top_k": -1}, "--top-k is 0 or more, not -1"),
        ({"top_p": 0}, "--top-p is above 0 and at most 1, not 0"),
        ({"temperature": 0}, "--temperature is above 0, not 0"),
    ],
)
def test_bad_sampling_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_searching_and_drawing_exclude_each_other(model, tmp_path):
    source = write_text(tmp_path / "src", ["ba"])
    with pytest.raises(ValueError, match="--top-k 1 draws the same translation every time"):
        generate([model], source, tmp_path / "out", n_best=2, sampling=Sampling(top_k=1))
    with pytest.raises(ValueError, match="leave one of them out"):
        generate([model], source, tmp_path / "out", beam=5, sampling=Sampling())
