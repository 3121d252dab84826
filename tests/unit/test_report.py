import pytest

from data_prep.manifest import write_json
from fairseq_plugins.evaluation import score
from fairseq_plugins.evaluation.comparison import compare
from fairseq_plugins.evaluation.metrics import corpus_scores
from fairseq_plugins.report.findings import NOISE
from tests.fixtures.models import toy_lines, write_text

REFERENCES = toy_lines(60, seed=1, longest=8)
PERFECT = REFERENCES
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


def test_a_system_against_itself_differs_by_nothing(scored):
    output = scored / "scores/good/medical.beam.en"
    result = compare(output, output, scored / "text/test.en", "en")
    assert result["difference"] == 0 and result["p_value"] > NOISE


def test_a_better_system_is_significantly_better(scored):
    good, poor = (scored / "scores" / name / "medical.beam.en" for name in ("good", "poor"))
    result = compare(good, poor, scored / "text/test.en", "en")
    assert result["difference"] > 10 and result["p_value"] < NOISE
    back = compare(poor, good, scored / "text/test.en", "en")
    assert back["difference"] == -result["difference"]


def test_systems_of_unequal_length_are_not_compared(scored):
    write_text(scored / "short.en", CLOSE[:-1])
    with pytest.raises(ValueError, match="differ in their number of lines"):
        compare(scored / "short.en", scored / "scores/poor/medical.beam.en",
                scored / "text/test.en", "en")  # fmt: skip


def test_scoring_files_needs_a_hypothesis_for_every_reference(scored):
    write_text(scored / "short.en", CLOSE[:-1])
    with pytest.raises(ValueError, match="stop being parallel at line 60"):
        score.score_files(scored / "short.en", scored / "text/test.en", "en")
    perfect = write_text(scored / "perfect.en", PERFECT)
    assert score.score_files(perfect, scored / "text/test.en", "en")["bleu"]["score"] == 100
