"""dad-score: its command line, what it prints and writes, and what it refuses."""

import io
import json
import pickle
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from data_prep.manifest import read_json
from fairseq_plugins.evaluation import score, score_formats, scoring
from fairseq_plugins.evaluation.indicators import INDICATORS, Facts
from fairseq_plugins.evaluation.scoring import Settings, TestSet, score_test_set
from tests.fixtures.models import read_text, toy_lines, write_text

REFERENCES = toy_lines(60, seed=1, longest=8)
OTHERS = [line.replace("du", "di") for line in REFERENCES]
GOOD = [line if n % 3 else line.replace("ba", "zz") for n, line in enumerate(REFERENCES)]
POOR = [line[::-1] for line in REFERENCES]
TERM = max(" ".join(REFERENCES).split(), key=len)
SOURCES = toy_lines(60, seed=2, longest=8)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with references, systems, and text folders of two test sets; the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, lines in (("ref.en", REFERENCES), ("other.en", OTHERS), ("good.en", GOOD),
                        ("poor.en", POOR), ("source.de", SOURCES)):  # fmt: skip
        write_text(tmp_path / name, lines)
    for name in ("medical", "general"):
        folder = tmp_path / name
        folder.mkdir()
        write_text(folder / "test.de", SOURCES)
        write_text(folder / "test.en", REFERENCES if name == "medical" else REFERENCES[::-1])
        own = [TERM] * 30 if name == "medical" else []
        write_text(folder / "train.en", toy_lines(90, seed=3 if own else 4) + own)
        write_text(tmp_path / f"good.{name}.en", GOOD)
        write_text(tmp_path / f"poor.{name}.en", POOR)
    return tmp_path


@pytest.fixture
def dad_score(place, monkeypatch, capsys):
    """Runs the command on words; gives (status, stdout, stderr)."""

    def run(*words, stdin=b""):
        words = [word for part in words for word in str(part).split()]
        monkeypatch.setattr(sys, "argv", ["dad-score", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            score.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


SHORT = "--references ref.en --target-lang en"
LONG = ("--source-lang de --target-lang en --test medical=medical --test general=general "
        "--system good=good.{test}.en --system poor=poor.{test}.en")  # fmt: skip


# -- what is scored ------------------------------------------------------------------------------


@pytest.mark.parametrize("references", [["ref.en"], ["ref.en", "other.en"]])
def test_scores_and_signatures_are_sacrebleus(dad_score, references):
    flags = " ".join(f"--references {name}" for name in references)
    texts = [read_text(name) for name in references]
    status, out, _ = dad_score(flags, "--target-lang en --metrics bleu chrf ter -f text -w 2",
                               "-- good.en")  # fmt: skip
    theirs = []
    for metric in (BLEU(force=True), CHRF(), TER()):
        found = metric.corpus_score(GOOD, texts, n_bootstrap=1000)
        theirs.append(found.format(2, signature=str(metric.get_signature())))
    assert (status, out.splitlines()) == (0, theirs)


@pytest.mark.parametrize(
    "flags, metric",
    [
        ("-m chrf --chrf-word-order 2", CHRF(word_order=2)),
        ("-m bleu -lc", BLEU(lowercase=True)),
        ("-m chrf -lc", CHRF(lowercase=True)),
        ("-m bleu -tok char", BLEU(tokenize="char")),
        ("-m bleu --target-lang zh", BLEU(tokenize="zh")),
    ],
)
def test_metrics_take_sacrebleus_options(dad_score, flags, metric):
    write_text("mixed.en", [line.title() if n % 2 else line for n, line in enumerate(GOOD)])
    _, out, _ = dad_score(SHORT, flags, "-f text --resamples 0 -- mixed.en")
    found = metric.corpus_score(read_text("mixed.en"), [REFERENCES])
    assert out == found.format(1, signature=str(metric.get_signature())) + "\n"


def test_standard_input_is_a_system(dad_score):
    stdin = "".join(line + "\n" for line in GOOD).encode()
    from_file = dad_score(SHORT, "-f text good.en")
    assert dad_score(SHORT, "-f text", stdin=stdin) == from_file
    assert dad_score(SHORT, "-f text -", stdin=stdin) == from_file
    _, out, _ = dad_score(SHORT, "--system piped=- poor.en --out scores.json", stdin=stdin)
    systems = read_json("scores.json")["test_sets"]["test"]["systems"]
    assert systems["piped"]["file"] == "-" and systems["piped"]["indicators"]["exact"]["count"] > 20


def test_batches_and_workers_change_nothing(place, monkeypatch):
    settings = Settings("en", ("bleu", "chrf", "ter"), resamples=0)
    test_set = TestSet("test", ["ref.en", "other.en"], "source.de")
    systems = {"good": "good.en", "poor": "poor.en"}
    found = []
    for batch, workers in ((1000, 1), (7, 1), (7, 2)):
        monkeypatch.setattr(scoring, "BATCH", batch)
        segments = []
        if workers == 2:
            monkeypatch.setattr(scoring, "in_processes", _two_at_once)
        result = score_test_set(test_set, systems, settings,
                                segments=lambda *line: segments.append(line))  # fmt: skip
        del result["objects"]
        found.append((result, segments))
    assert found[0] == found[1] == found[2]
    scores = found[0][0]["systems"]["good"]["scores"]
    assert set(scores["bleu"]) == {"score", "signature"}  # without resamples, no interval


def test_one_output_for_many_sources_is_found_across_batches(place, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 2)
    write_text("same.en", ["sorry"] * 6 + GOOD[6:])
    test_set = TestSet("test", ["ref.en"], "source.de")
    result = score_test_set(test_set, {"same": "same.en"}, Settings("en", resamples=0))
    assert result["systems"]["same"]["indicators"]["same_output"]["count"] == 6


class _two_at_once:
    """As ``in_processes``: a function goes to each worker as bytes."""

    def __init__(self, workers, preload=()):
        pass

    def __enter__(self):
        return lambda function, batches: map(pickle.loads(pickle.dumps(function)), batches)

    def __exit__(self, *_):
        pass


def test_a_tokeniser_that_cannot_be_sent_is_built_anew(place):
    scorer = scoring.Scorer(Settings("en"), False, 1, Facts(), False)
    expected = scorer([REFERENCES, GOOD])
    scorer._metrics["bleu"].tokenizer = lambda line: line  # as MeCab's, is not to be pickled
    (one,), (other,) = pickle.loads(pickle.dumps(scorer))([REFERENCES, GOOD]), expected
    assert (one["rows"]["bleu"] == other["rows"]["bleu"]).all()


# -- what is printed -----------------------------------------------------------------------------


def test_brief_prints_numbers_alone(dad_score):
    _, out, _ = dad_score(SHORT, "--brief -w 2 good.en poor.en")
    expected = [f"{metric.corpus_score(system, [REFERENCES]).score:.2f}"
                for system in (GOOD, POOR) for metric in (BLEU(force=True), CHRF())]  # fmt: skip
    assert out.split("\n") == [*expected, ""]


def test_the_table_names_systems_intervals_tests_and_traits(dad_score):
    status, out, _ = dad_score(LONG, "--baseline poor --metrics bleu ter --train medical "
                               "--train general")  # fmt: skip
    assert status == 0 and max(map(len, out.splitlines())) <= 100
    medical, general = out.split("general: 60 lines, 1 reference")
    assert medical.startswith("medical: 60 lines, 1 reference")
    for part in (medical, general):
        assert "poor (baseline)" in part and part.count("against poor") == 1
        assert "copied from source" in part and "recall, words seen more" in part
        assert "far from every reference" not in part  # needs chrF
    good = next(line for line in medical.splitlines() if line.startswith("good  "))
    bleu = BLEU(force=True).corpus_score(GOOD, [REFERENCES], n_bootstrap=1000)
    assert f"{bleu.score:.1f} ± {bleu._ci:.1f}" in good
    assert "* (p = 0.001)" in medical and "less is better" in general
    assert "BLEU|nrefs:1|bs:1000|seed:12345" in general


def test_many_systems_are_numbered_and_stay_within_the_width(dad_score):
    names = [f"a/long/folder/of/some/system/{n}/with/more/test.en" for n in range(12)]
    for name in names:
        folder = name.rpartition("/")[0]
        Path(folder).mkdir(parents=True)
        write_text(name, GOOD)
    _, out, _ = dad_score(SHORT, "--baseline", names[3], *names)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("[4] 3 (baseline)") for line in lines)
    heads = [line for line in lines if line.startswith("trait of")]
    assert " ".join(heads).count("[") == 12 and len(heads) == 2


def test_names_are_shortened_to_what_differs():
    names = ["runs/x/1/test.en", "runs/x/2/test.en"]
    assert list(score_formats.short_names(names).values()) == ["1", "2"]
    (short,) = score_formats.short_names(["a" * 30 + "/" + "b" * 30]).values()
    assert short == "…aa/" + "b" * 30
    assert list(score_formats.short_names(["9", "9 word"]).values()) == ["9", "9 word"]


def test_json_is_sacrebleus(dad_score):
    one = json.loads(dad_score(SHORT, "-f json -m bleu -- good.en")[1])
    metric = BLEU(force=True)
    theirs = metric.corpus_score(GOOD, [REFERENCES], n_bootstrap=1000)
    signature = str(metric.get_signature())
    assert one == json.loads(theirs.format(1, signature=signature, is_json=True))
    assert len(json.loads(dad_score(SHORT, "-f json good.en")[1])) == 2
    several = json.loads(dad_score(LONG, "-f json --baseline poor")[1])
    assert [(entry["test_set"], entry["system"]) for entry in several] == [
        ("medical", "good"), ("medical", "poor"), ("general", "good"), ("general", "poor"),
    ]  # fmt: skip
    assert several[0]["BLEU"]["p_value"] < 0.05 and several[1]["BLEU"]["p_value"] is None
    assert set(several[0]["chrF2"]) == {"score", "p_value", "mean", "ci", "signature"}


def test_lines_of_several_systems_begin_with_their_names(dad_score):
    lines = dad_score(LONG, "-f text -m bleu")[1].splitlines()
    assert [line.split("\t")[:2] for line in lines][1:3] == [["medical", "poor"],
                                                             ["general", "good"]]  # fmt: skip
    assert all(line.split("\t")[2].startswith("BLEU|nrefs:1") for line in lines)


def test_everything_is_in_the_json_file_and_its_manifest(dad_score):
    dad_score(LONG, "--baseline poor --paired ar --train medical=medical --train general "
              "--out scores.json --resamples 100")  # fmt: skip
    record = read_json("scores.json")["test_sets"]
    good = record["general"]["systems"]["good"]
    assert set(good) == {"file", "empty_lines", "scores", "indicators", "paired"}
    assert good["paired"]["bleu"]["test"] == "ar" and "ar:10000" in good["paired"]["bleu"][
        "signature"]  # fmt: skip
    assert "bs:100" in good["scores"]["chrf"]["signature"]
    assert "paired" not in record["general"]["systems"]["poor"]
    assert record["medical"]["references"] == ["medical/test.en"]
    assert record["medical"]["terms"] == [TERM] and record["general"]["terms"] == []
    recall = {name: found["systems"]["good"]["indicators"]["term_recall"]
              for name, found in record.items()}  # fmt: skip
    assert recall["medical"]["of"] > 0 and recall["general"] == {"value": None, "count": 0, "of": 0}
    manifest = read_json("scores.json.manifest.json")
    assert {"medical/test.de", "good.general.en", "general/train.en"} <= set(manifest["inputs"])
    assert manifest["seed"] == "12345" and manifest["counts"] == {"medical lines": 60,
                                                                  "general lines": 60}  # fmt: skip


def test_segments_tell_sentence_scores_and_traits_of_every_line(dad_score):
    write_text("terms.tsv", ["ba\tba", "du"])
    dad_score(LONG, "--segments lines.tsv --metrics bleu chrf ter --terms terms.tsv",
              "--train medical")  # fmt: skip
    head, *rows = [line.split("\t") for line in read_text("lines.tsv")]
    assert len(rows) == 2 * 60 * 2 and {len(row) for row in rows} == {len(head)}
    assert head[:6] == ["test_set", "line", "system", "bleu", "chrf", "ter"]
    for number in (1, 7, 60):
        row = dict(zip(head, rows[2 * number - 2], strict=True))
        assert (row["test_set"], row["line"], row["system"]) == ("medical", str(number), "good")
        metrics = {"bleu": BLEU(effective_order=True), "chrf": CHRF(), "ter": TER()}
        for name, metric in metrics.items():
            sentence = metric.sentence_score(GOOD[number - 1], [REFERENCES[number - 1]])
            assert row[name] == f"{sentence.score:.2f}"
        assert row["exact"] == str(int(GOOD[number - 1] == REFERENCES[number - 1]))
        sizes = len(GOOD[number - 1]), len(REFERENCES[number - 1])
        assert row["length_ratio"] == f"{sizes[0]}/{sizes[1]}"
    assert {"0", ""} <= {row[head.index("too_short")] for row in rows}  # short ones are not judged
    assert "same_output" not in head and "term_recall" in head


def test_segments_without_indicators_are_scores(dad_score):
    dad_score(SHORT, "--no-indicators --segments lines.tsv good.en")
    assert read_text("lines.tsv")[0] == "test_set\tline\tsystem\tbleu\tchrf"
    status, out, _ = dad_score(SHORT, "--no-indicators good.en")
    assert "trait" not in out and status == 0


def test_empty_translations_are_legal_and_counted(dad_score):
    write_text("gaps.en", ["", " ", *GOOD[2:]])
    status, out, _ = dad_score(SHORT, "gaps.en good.en --out scores.json")
    assert status == 0 and "  2 empty lines" in out
    systems = read_json("scores.json")["test_sets"]["test"]["systems"]
    assert systems["gaps.en"]["empty_lines"] == 2 and systems["good.en"]["empty_lines"] == 0


def test_references_of_a_folder_may_be_several(dad_score, place):
    write_text(place / "medical" / "test.en.1", OTHERS)
    write_text(place / "medical" / "test.en.3", POOR)  # after a gap: none
    _, out, _ = dad_score(LONG, "-f text -m bleu --resamples 0")
    assert [line.split("nrefs:")[1][0] for line in out.splitlines()] == ["2", "2", "1", "1"]


def test_indicators_are_listed_with_their_sources(dad_score):
    status, out, _ = dad_score("--list-indicators")
    assert status == 0 and out.count("  Source: ") == len(INDICATORS)
    assert "Dankers & Raunak 2025" in out and max(map(len, out.splitlines())) <= 140


@pytest.mark.parametrize(
    "text, name",
    [("medical", "medical"), ("./medical", "medical"), ("spare=medical", "spare"),
     ("general", "general")],
)  # fmt: skip
def test_training_text_belongs_to_the_test_set_in_its_folder(place, text, name):
    found = score.train_text(text, {"medical": str(place / "medical")}, "en")
    assert found[0] == name and found[1].name == "train.en"


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        (f"{SHORT} short.en good.en", "same number of lines:\n           60  ref.en\n"
                                      "           59  short.en\n           60  good.en"),
        (f"{SHORT} nothing.en", "60  ref.en\n            0  nothing.en"),
        ("--references nothing.en --target-lang en nothing.en", "hold no lines"),
        (f"{SHORT} blank.en", "blank.en holds nothing but 60 empty lines"),
        (f"{SHORT} latin.en", "latin.en, line 3: not UTF-8"),
        (f"{SHORT} none.en", "none.en is missing"),
        (f"{SHORT} good.en good.en", "'good.en' is given twice"),
        (f"{SHORT} good.en --system good.en=poor.en", "'good.en' names two systems"),
        (f"{SHORT} --system a=good.en --system a=poor.en", "'a' stands twice in --system"),
        (f"{SHORT} --system good.en", "--system takes NAME=PATTERN, not 'good.en'"),
        (f"{SHORT} good.en -m rouge", "metric 'rouge' is unknown; there are bleu, chrf, ter"),
        (f"{SHORT} -m bleu good.en", "'good.en' is a file"),
        (f"{SHORT} good.en -tok mine", "tokeniser 'mine' is unknown"),
        (f"{SHORT} good.en poor.en --baseline best", "'best' is no system; there are good.en, "),
        (f"{SHORT} good.en --baseline good.en", "'good.en' is the only system"),
        (f"{SHORT} good.en --resamples 1", "--resamples is 0 or at least 2, not 1"),
        (f"{SHORT} good.en --workers 0", "--workers is 1 or more, not 0"),
        (f"{SHORT} good.en --terms pairs.tsv", "there is no source text"),
        (f"{SHORT} good.en --train medical=", "--train takes a folder or NAME=DIR"),
        (f"{SHORT} good.en --train none", "none/train.en is missing"),
        ("--target-lang en good.en", "no references"),
        ("--references ref.en good.en", "--target-lang is missing"),
        (f"{LONG} --references ref.en", "--references and --source are not needed"),
        (f"{LONG} good.en", "good.en would be scored on 2 test sets"),
        (f"{LONG} --test medical=general", "'medical' stands twice in --test"),
        (f"{LONG} --test other=none", "none/test.en is missing"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_nothing_is_written(dad_score, place, words, message):
    write_text(place / "short.en", GOOD[:-1])
    write_text(place / "nothing.en", [])
    write_text(place / "blank.en", [" "] * 60)
    write_text(place / "pairs.tsv", ["a\tb"])
    (place / "latin.en").write_bytes(b"a\nb\n\xe4\n")
    status, out, err = dad_score(words, "--out scores.json --segments lines.tsv")
    assert (status, out) == (1, "") and message in err and err.startswith("dad-score: error:")
    assert not list(place.glob("scores.json*")) and not list(place.glob("lines.tsv*"))


def test_lines_end_at_line_feeds_alone(dad_score, place):
    odd = [line.replace(" ", "\u2028", 1).replace(" ", "\r", 1) for line in GOOD]
    write_text(place / "odd.en", odd)
    assert dad_score(SHORT, "odd.en")[0] == 0
