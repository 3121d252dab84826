import subprocess
import sys

import pytest

from data_prep.manifest import read_json, write_json
from fairseq_plugins.evaluation.metrics import corpus_scores
from tests.fixtures.models import toy_lines, write_text

REFERENCES = toy_lines(60, seed=1, longest=8)
CLOSE = [line if number % 3 else line.replace("ba", "zz") for number, line in enumerate(REFERENCES)]
POOR = [line[::-1] for line in REFERENCES]


@pytest.fixture
def scored(tmp_path):
    """Folders as dad-evaluate makes them, for systems `good` and `poor`."""
    text = tmp_path / "text"
    text.mkdir()
    write_text(text / "test.en", REFERENCES)
    for name, output in (("good", CLOSE), ("poor", POOR)):
        folder = tmp_path / "scores" / name
        folder.mkdir(parents=True)
        write_text(folder / "medical.beam.en", output)
        entry = corpus_scores(output, REFERENCES, "en")
        test_set = {"lines": len(REFERENCES), "beam": entry, "greedy": entry}
        write_json(
            folder / "scores.json",
            {
                "name": name, "label": f"what {name} learnt", "model": f"exported/{name}",
                "counts": {"parameters": 1_234_567, "bytes": 2_500_000}, "beam": 5,
                "test_sets": {"medical": test_set, "general": test_set},
            },
        )  # fmt: skip
    return tmp_path


def dad_report(scored, *words):
    command = [
        sys.executable, "-m", "fairseq_plugins.report.report", "--domain", "medical",
        "--target-lang", "en", "--references", "text", "--scores", "scores/good",
        "--scores", "scores/poor", "--out", "report", *words,
    ]  # fmt: skip
    return subprocess.run(command, cwd=scored, capture_output=True, text=True)


def test_the_table_shows_every_system_with_intervals_and_signature(scored):
    done = dad_report(scored, "--compare", "good:poor:learning it right")
    assert done.returncode == 0, done.stderr
    good, poor = (done.stdout.splitlines()[number] for number in (2, 3))
    bleu = read_json(scored / "scores/good/scores.json")["test_sets"]["medical"]["beam"]["bleu"]
    assert good.startswith("good") and f"{bleu['score']:.1f} ± {bleu['interval']:.1f}" in good
    assert "1.23 M" in good and "2.5" in good and poor.startswith("poor")
    assert bleu["signature"] in done.stdout
    assert "learning it right" in done.stdout and "significant; poor → good" in done.stdout
    assert (scored / "report" / "table.txt").read_text() == done.stdout


def test_every_score_is_in_the_tsv(scored):
    dad_report(scored)
    rows = [line.split("\t") for line in (scored / "report/scores.tsv").read_text().splitlines()]
    assert len(rows) == 1 + 2 * 2 * 2 * 2  # systems, test sets, decodings, metrics
    assert {len(row) for row in rows} == {7}


def test_the_same_scores_give_the_same_bytes(scored):
    dad_report(scored, "--compare", "good:poor:x")
    first = (scored / "report" / "scores.tsv").read_bytes()
    subprocess.run(["rm", "-r", "report"], cwd=scored, check=True)
    dad_report(scored, "--compare", "good:poor:x")
    assert (scored / "report" / "scores.tsv").read_bytes() == first


@pytest.mark.parametrize(
    "words, message",
    [
        (["--compare", "good:best:x"], "there is no row 'best', only good, poor"),
        (["--scores", "scores/none"], "scores/none/scores.json is missing"),
        (["--speed", "speed.json"], "speed.json is missing"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_left(scored, words, message):
    done = dad_report(scored, *words)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (scored / "report").exists() and not (scored / "report.part").exists()
