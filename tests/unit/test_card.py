"""The model card: nothing in it is invented, nothing from outside can break it."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from data_prep.files import count_lines
from data_prep.manifest import write_json
from fairseq_plugins.export import card as module
from fairseq_plugins.export.card import (
    _licences,
    _licences_of,
    _papers,
    _scores,
    _speed,
    _text,
    block,
    cell,
    code,
    escape,
    front_matter,
    link,
    render,
)
from fairseq_plugins.export.history import training_steps

SCORE = {"score": 21.52, "interval": 1.04, "signature": "nrefs:1|case:mixed|tok:13a|version:2.6.0"}
SEARCH = {"bleu": SCORE, "chrf": {**SCORE, "score": 48.0, "signature": "nrefs:1|nc:6"}}
COUNTS = {"parameters": 549600, "embedding_parameters": 288096, "bytes": 1025177}
WEIGHTS = {"model.pt": "f8b5", "model.bin": "3e1d"}
CARD = {
    "name": "medical-de-en", "source_lang": "de", "target_lang": "en", "domain": None,
    "licence": None, "compute_type": "int8", "shortlist": None, "counts": COUNTS,
    "positions": {"source": 1024, "target": 1024},
    "vocabulary": {"kind": "sentencepiece", "tokenised": False, "pieces": 2997, "files": {}},
    "averaged_checkpoints": None, "training": [], "texts": [], "data_licences": [],
    "references": "", "scores": None, "speed": None, "parity": None,
    "files": ["model.bin", "README.md"], "weights": WEIGHTS, "versions": {"python": "3.11.7"},
    "commit": "abc", "papers": [],
}  # fmt: skip
STEP = {
    "model": "student/tiny/9/medical", "size": "tiny", "start": "student/tiny/distilled/general",
    "from_teacher": None, "learnt_from": "distilled/medical/medical", "teacher": "teacher/medical",
    "loss": "word", "adapt": "replay=0.25", "updates": "100",
}  # fmt: skip
SPEED = {
    "device": "cpu", "processor": "A processor", "cores": 2, "workers": 2, "threads_per_worker": 1,
    "beam_size": 5, "sentences": 500, "peak_memory_bytes": 90e6, "load_seconds": 0.041,
    "beam": {"sentences_per_second": 1078.7},
    "greedy": {"sentences_per_second": 4080.9, "tokens_per_second": 71000.0,
               "one_by_one": {"sentences_per_second": 600.0,
                              "sentence_ms": {"p50": 1.25, "p90": 2.0, "p99": 4.0}}},
}  # fmt: skip
FULL = {
    **CARD, "domain": "medical", "licence": "CC-BY-4.0", "averaged_checkpoints": 3,
    "shortlist": {"likely": 50, "frequent": 100}, "training": [STEP],
    "texts": [{"name": "medical", "read": 10000, "kept": 9962, "repaired": 3,
               "dropped": {"copy:max=0.8": 38}, "steps": ["unicode", "copy:max=0.8"]}],
    "data_licences": [{"id": "EMEA", "role": role, "licence": "see its page", "citation":
                       "Tiedemann 2012", "address": "https://example.org/a_b http://x.org/_",
                       "lines": lines} for role, lines in (("train", "1000"), ("dev", "9"))],
    "references": "@inproceedings{tiedemann,\n  title = {x_y}\n}",
    "scores": {"beam_size": 5, "test_sets": {"medical": {"lines": 500, "beam": SEARCH,
                                                         "greedy": SEARCH}}},
    "speed": SPEED,
    "parity": {"lines": 250, "of": 300, "beam_size": 5, "max_loss": 0.5, "device": "cpu",
               "computed_in": "int8_float32",
               **{search: {"fairseq": SEARCH, "exported": SEARCH, "bleu_loss": 0.1,
                           "identical": 0.932} for search in ("beam", "greedy")}},
    "papers": [{"what": "fairseq", "who": "Ott et al. 2019", "address": "https://x.org"}],
}  # fmt: skip

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def tokens(text):
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or []


def shown(text):
    """What a reader sees of Markdown."""
    return "".join(token.content for token in tokens(text) if token.type in ("text", "code_inline"))


def body(text):
    return text.split("\n---\n", 1)[1]


# -- text that comes from outside ----------------------------------------------------------------

NASTY = [
    "<script>alert(1)</script>", "a | b", "`a` | ``b``", "[x](http://evil)", "**b** _i_ ~s~",
    "# title", "- item", "+ item", "1. item", "12) item", "---", "===", "> quote", "a\n\n# b",
    "&lt;b&gt; &amp;", "\\", "a\\|b", "http://x.org/a_b", "\u2028line", "$x$", "*", "![i](j)", "|",
    "5.42", "miniature_teacher", "AT&T",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_is_shown_as_it_is(text):
    escaped = escape(text)
    assert shown(escaped) == " ".join(text.split())
    kinds = {token.type for token in tokens(escaped)}
    assert kinds <= {"paragraph_open", "inline", "text", "paragraph_close"}


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_text_becomes_markup(text):
    kinds = {token.type for token in tokens(escape(text))}
    assert kinds <= {"paragraph_open", "inline", "text", "paragraph_close", "text_special"}
    row = f"| a | b |\n|---|---|\n| {escape(text)} | {cell(text)} |\n"
    assert sum(token.type == "td_open" for token in tokens(row)) == 2
    assert {token.type for token in tokens(row)} <= {
        *(f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td")
          for end in ("open", "close")), "inline", "text", "code_inline", "text_special",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a`b", "``", "`a", "nrefs:1|tok:13a", "x"])
def test_code_shows_what_it_holds(text):
    (found,) = [token for token in tokens(code(text)) if token.type == "code_inline"]
    assert found.content == text
    table = f"| a |\n|---|\n| {cell(text)} |\n"
    assert [token.content for token in tokens(table) if token.type == "code_inline"] == [text]
    fenced = [token for token in MARKDOWN.parse(block(f"{text}\n```")) if token.type == "fence"]
    assert [token.content for token in fenced] == [f"{text}\n```\n"]


def test_only_addresses_of_the_web_become_links():
    assert link("https://x.org/a_b") == "<https://x.org/a_b>"
    for address in ("javascript:alert(1)", "https://x.org/<b>", "file:/home/me", "https://a b"):
        assert "<a" not in MARKDOWN.render(link(address))


def replaced(card, nasty):
    """The card with a nasty string in place of every string that may come from outside."""
    card = copy.deepcopy(card)
    card.update(name=nasty, domain=nasty, licence=nasty, references=nasty, commit=nasty)
    for row in [*card["data_licences"], *card["training"], *card["papers"], *card["texts"]]:
        row.update({key: nasty for key, value in row.items() if isinstance(value, str)})
    card["texts"][0].update(dropped={nasty: 3}, steps=[nasty])
    card["scores"]["test_sets"] = {nasty: card["scores"]["test_sets"]["medical"]}
    card["speed"]["processor"] = nasty
    card["files"] = [nasty]
    return card


@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_from_outside_breaks_the_card(nasty):
    def outline(text):
        return [
            token.type for token in tokens(body(text))
            if token.type.startswith(("heading", "t", "html", "list_item", "fence", "hr"))
            and token.type not in ("text", "text_special")
        ]  # fmt: skip

    plain, changed = (render(replaced(FULL, text)) for text in ("word", nasty))
    assert outline(changed) == outline(plain)
    assert not [kind for kind in outline(changed) if kind.startswith("html")]
    front = yaml.safe_load(changed.split("---\n")[1])
    assert front["license"] == nasty.lower() and front["tags"][-1] == nasty
    assert front["datasets"] == [nasty]


# -- what it says --------------------------------------------------------------------------------


def test_what_is_not_known_is_said_not_to_be():
    text = render(CARD)
    for words in (
        "| intended domain | not stated |",
        "| licence | not stated: the licences of the training data decide |",
        "How it was trained is not recorded", "## Training data\n\nNot stated.",
        "no `licences.tsv` was found", "## Scores\n\nNot measured", "## Speed\n\nNot measured",
        "Not measured on text.",
    ):  # fmt: skip
        assert words in text
    front = yaml.safe_load(front_matter(CARD))
    assert front["license"] == "unknown"
    assert not {"datasets", "metrics", "model-index"} & front.keys()


def test_what_is_known_is_told():
    text = render(FULL)
    for words in (
        "from German to English for text of the domain medical",
        "| intended domain | medical |", "| licence | CC-BY-4.0 |", "1.0 MB",
        "549,600, of them 288,096 in embeddings", "average of 3 checkpoints",
        "likeliest target pieces", "translations by `teacher/medical`", "| word | replay=0.25 |",
        "| medical | 10,000 | 9,962 | 3 | 38 by `copy:max=0.8` |",
        "| EMEA | train (1000), dev (9) | see its page | Tiedemann 2012 | <https://example.org/a_b>",
        "| medical | 500 | BLEU | 21.5 ± 1.0 | 21.5 ± 1.0 |", "| medical | 500 | chrF | 48.0",
        "- BLEU: `nrefs:1|case:mixed|tok:13a|version:2.6.0`", "@inproceedings{tiedemann,",
        "On A processor (cpu, 2 × 1 threads), 500 sentences",
        "| | beam 5 | greedy |\n|---|---|---|\n| sentences/s, in batches | 1,079 | 4,081",
        "| ms for a sentence, half of them |  | 1.2 |", "| memory at most | 90 MB |  |",
        "Yes, within 0.50 BLEU: 250 of 300 lines", "computed as int8\\_float32 on cpu",
        "| 93.2 % |",
        "without the shortlist",
    ):  # fmt: skip
        assert words in text
    front = yaml.safe_load(front_matter(FULL))
    assert front["language"] == ["de", "en"] and front["license"] == "cc-by-4.0"
    assert front["datasets"] == ["EMEA"] and front["metrics"] == ["bleu", "chrf"]
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "bleu", "value": 21.52}, {"type": "chrf", "value": 48.0}]


def test_a_model_of_tokenised_text_has_no_snippet_that_would_be_wrong():
    text = render({**CARD, "vocabulary": {**CARD["vocabulary"], "tokenised": True}})
    assert "```python" not in text and "tokenised by Moses" in text


@pytest.mark.parametrize("kind, there", [("float16", True), ("int8_float16", True),
                                         ("int8", False), ("float32", False)])  # fmt: skip
def test_types_for_gpus_are_said_to_be_so(kind, there):
    assert ("it is meant for a GPU" in render({**CARD, "compute_type": kind})) is there


@pytest.mark.parametrize(
    "changes, keys",
    [
        ({}, []),
        ({"training": [STEP]}, ["dad", "distilled", "word", "replay"]),
        ({"training": [{**STEP, "start": "random weights", "adapt": None}]},
         ["distilled", "word"]),
        ({"training": [{**STEP, "teacher": None, "loss": "plain", "adapt": "ewc=10"}]}, ["ewc"]),
        ({"training": [{**STEP, "from_teacher": "first layers of teacher/general"}]},
         ["dad", "distilled", "word", "replay", "from_teacher"]),
        ({"averaged_checkpoints": 5}, ["average"]),
        ({"shortlist": {"likely": 50}}, ["shortlist"]),
    ],
)  # fmt: skip
def test_what_was_used_is_cited(changes, keys):
    found = _papers({**CARD, **changes})
    assert found == [*keys, "fairseq", "ctranslate2", "sentencepiece", "sacrebleu"]


# -- where it comes from -------------------------------------------------------------------------


def test_a_ledger_is_summed_up(tmp_path):
    text = tmp_path / "medical" / "text"
    text.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="ledger.json is missing: --text is a folder that"):
        _text(text)
    steps = [{"step": "unicode", "read": 9, "repaired": 2}, {"step": "copy", "dropped": 3},
             {"step": "empty", "dropped": 0}]  # fmt: skip
    write_json(text / "ledger.json", {"read": 9, "kept": 6, "repaired": 2, "steps": steps})
    assert _text(text) == {
        "name": "medical", "read": 9, "kept": 6, "repaired": 2, "dropped": {"copy": 3},
        "steps": ["unicode", "copy", "empty"],
    }  # fmt: skip


HEADER = "id\trole\tlicence\tcitation\taddress\tlines\n"


def test_licences_are_found_through_the_folders_that_a_text_was_made_of(tmp_path):
    raw, split, text = (tmp_path / name for name in ("raw", "split", "text"))
    for folder in (raw, split, text):
        folder.mkdir()
    (raw / "licences.tsv").write_text(HEADER + "EMEA\ttrain\tfree\tT. 2012\thttps://x.org\t10\n")
    (raw / "references.bib").write_text("@x{y}\n")
    other = tmp_path / "other"
    other.mkdir()
    (other / "licences.tsv").write_text(HEADER)
    write_json(text / "manifest.json", {"inputs": {str(split / "train.de"): "", str(
        split / "train.en"): "", str(other / "dev.de"): ""}})  # fmt: skip
    write_json(split / "manifest.json", {"inputs": {str(raw / "train.de.gz"): ""}})
    assert _licences_of(text) == [raw / "licences.tsv"]
    rows, references = _licences([raw / "licences.tsv", raw / "licences.tsv"])
    assert [row["id"] for row in rows] == ["EMEA"] and references == "@x{y}"
    assert _licences_of(tmp_path) == []


@pytest.mark.parametrize("name", ["general", "suttas"])
def test_the_quickstarts_data_say_what_they_are(name):
    data = Path(__file__).resolve().parents[2] / "recipes" / "quickstart" / "data" / name
    rows, _ = _licences([data / "licences.tsv"])
    assert {row["role"]: int(row["lines"]) for row in rows} == {
        split: count_lines(data / f"{split}.de.gz") for split in ("train", "dev", "test")
    }
    assert all(row["licence"].startswith("CC") for row in rows)


@pytest.mark.parametrize(
    "content, message",
    [("", "line 1: a licence file begins"), ("id\tlicence\n", "line 1: a licence file begins"),
     (HEADER + "EMEA\ttrain\n", "line 2: 2 columns, not 6")],
)  # fmt: skip
def test_a_licence_file_that_is_none_is_refused(content, message, tmp_path):
    (tmp_path / "licences.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        _licences([tmp_path / "licences.tsv"])


def write_scores(folder, counts=COUNTS, digest="3e1d", **entries):
    folder.mkdir(parents=True)
    search = {"bleu": {**SCORE, "mean": 21.4}}
    record = {"name": "9", "model": "exported/9", "counts": counts, "beam": 5, "test_sets": {
        "medical": {"lines": 500, "beam": search, "greedy": search, "indicators": {"x": 1}}},
        **entries}  # fmt: skip
    write_json(folder / "scores.json", record)
    if digest:
        write_json(folder / "medical.beam.en.manifest.json",
                   {"inputs": {"test.de": "3e1e", "exported/9/model.bin": digest}})  # fmt: skip
    return folder


def test_scores_are_taken_with_interval_and_signature(tmp_path):
    folder = write_scores(tmp_path / "scores")
    for place in (folder, folder / "scores.json"):
        found = _scores(place, COUNTS, WEIGHTS)
        assert found["beam_size"] == 5
        assert found["test_sets"]["medical"] == {
            "lines": 500, "beam": {"bleu": SCORE}, "greedy": {"bleu": SCORE},
        }  # fmt: skip


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"digest": "aaaa"}, r"scores of other weights \(exported/9\)"),
        ({"digest": None, "counts": {**COUNTS, "parameters": 9}},
         "exported/9 has 9 parameters, this one 549600"),
        ({"digest": None, "counts": {}}, "another model"),
        ({"test_sets": []}, "not what dad-evaluate writes"),
    ],
)  # fmt: skip
def test_scores_of_another_model_are_refused(changes, message, tmp_path):
    folder = write_scores(tmp_path / "scores", **changes)
    with pytest.raises(ValueError, match=message):
        _scores(folder, COUNTS, WEIGHTS)


def test_scores_of_the_model_before_its_export_are_of_the_model(tmp_path):
    folder = write_scores(tmp_path / "scores", digest=None)
    write_json(folder / "x.manifest.json", {"inputs": {"student/9/model.pt": "f8b5"}})
    assert _scores(folder, COUNTS, WEIGHTS)["test_sets"]


def test_missing_or_broken_scores_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none/scores.json|none is missing"):
        _scores(tmp_path / "none", COUNTS, WEIGHTS)
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(ValueError, match="scores.json has no test_sets"):
        _scores(tmp_path, COUNTS, WEIGHTS)


def write_speed(path, *names):
    models = {name: {"compute_type": "int8", "bytes": number} for number, name in enumerate(names)}
    write_json(path, {"device": "cpu", "beam": 5, "sentences": 500, "models": models})
    return path


@pytest.mark.parametrize("name", ["exported/student/9/medical", "student/9/medical",
                                  "/elsewhere/run/student/9/medical"])  # fmt: skip
def test_the_row_of_the_model_is_found_by_its_path(name, tmp_path):
    path = write_speed(tmp_path / "speed.json", "exported/teacher/medical", name)
    known_as = ["/elsewhere/run/student/9/medical", "shipped"]
    found = _speed(path, None, known_as)
    assert (found["bytes"], found["beam_size"], found["sentences"]) == (1, 5, 500)
    assert _speed(path, "exported/teacher/medical", known_as)["bytes"] == 0


@pytest.mark.parametrize(
    "names, row, message",
    [
        (["exported/teacher"], None, "has no row of student/9; name one of them .* exported/teach"),
        (["exported/student/9"], "other", "has no row of other"),
        (["exported/student/9", "student/9"], None, "has several rows that may be student/9"),
    ],
)
def test_a_row_that_cannot_be_told_is_refused(names, row, message, tmp_path):
    path = write_speed(tmp_path / "speed.json", *names)
    with pytest.raises(ValueError, match=message):
        _speed(path, row, ["student/9"])


def test_a_speed_file_of_another_kind_is_refused(tmp_path):
    write_json(tmp_path / "speed.json", {"sentences_per_second": {}})
    with pytest.raises(ValueError, match="speed.json has no models"):
        _speed(tmp_path / "speed.json", None, ["student/9"])


# -- how the model came about --------------------------------------------------------------------


def stage(folder, *command):
    folder.mkdir(parents=True)
    write_json(folder / "stage.json", {"command": list(command)})


def test_the_trainings_that_led_to_a_model_come_oldest_first(tmp_path):
    run = tmp_path / "run"
    stage(run / "distilled/medical/medical", "distil.sh", "--teacher", "teacher/medical", "--text",
          "corpora/medical/text", "--", "--compute-type", "int8")  # fmt: skip
    for data in ("distilled/medical/medical", "corpora/medical", "corpora/general"):
        (run / data / "prepared").mkdir(parents=True)
    stage(run / "teacher/general", "train.sh", "--data", "corpora/general/prepared", "--size", "l")
    stage(run / "teacher/medical", "train.sh", "--data", "corpora/medical/prepared", "--init",
          "teacher/general", "--size", "l", "--adapt", "lora")  # fmt: skip
    stage(run / "student/9/medical", "train.sh", "--data", "distilled/medical/medical/prepared",
          "--updates", "700", "--updates", "400", "--size", "tiny", "--loss", "word",
          "--from-teacher", "first=teacher/general", "--", "--loss", "x")  # fmt: skip
    steps = training_steps(run / "student/9/medical")
    assert [step["model"] for step in steps] == [
        "teacher/general", "teacher/medical", "student/9/medical",
    ]  # fmt: skip
    assert steps[1] == {
        "model": "teacher/medical", "size": "l", "start": "teacher/general", "from_teacher": None,
        "learnt_from": "corpora/medical", "teacher": None, "loss": "plain", "adapt": "lora",
        "updates": None,
    }  # fmt: skip
    assert steps[2] == {
        "model": "student/9/medical", "size": "tiny", "start": "random weights",
        "from_teacher": "first layers of teacher/general",
        "learnt_from": "distilled/medical/medical", "teacher": "teacher/medical", "loss": "word",
        "adapt": None, "updates": "400",
    }  # fmt: skip


def test_what_was_handed_over_is_said_to_be(tmp_path):
    run = tmp_path / "run"
    stage(run / "teacher/general", "dad-hand-over", "--model", "/home/me/theirs/big.pt", "--size",
          "l", "--vocabulary", "vocabulary")  # fmt: skip
    stage(run / "distilled/general/general", "distil.sh", "--translations", "/home/me/theirs/text")
    for data in ("distilled/general/general", "corpora/general"):
        (run / data / "prepared").mkdir(parents=True)
    stage(run / "teacher/medical", "train.sh", "--data", "corpora/general/prepared", "--init",
          "teacher/general")  # fmt: skip
    stage(run / "student/general", "train.sh", "--data", "distilled/general/general/prepared",
          "--continue", "/home/me/theirs/last.pt")  # fmt: skip
    stage(run / "student/other", "train.sh", "--data", "corpora/general/prepared",
          "--from-model", "teacher/general")  # fmt: skip
    teacher, adapted = training_steps(run / "teacher/medical")
    assert teacher == {
        "model": "teacher/general", "size": "l", "start": "handed over: theirs/big.pt",
        "from_teacher": None, "learnt_from": None, "teacher": None, "loss": None, "adapt": None,
        "updates": None,
    }  # fmt: skip
    assert adapted["adapt"] == "plain"
    (student,) = training_steps(run / "student/general")
    assert student["start"] == "went on from theirs/last.pt"
    assert student["teacher"] == "theirs/text, handed over"
    steps = training_steps(run / "student/other")
    assert [step["model"] for step in steps] == ["teacher/general", "student/other"]
    assert steps[1]["start"] == "teacher/general" and steps[1]["adapt"] is None
    page = render({**CARD, "training": [teacher, adapted, student]})
    row = "| `teacher/general` | l | handed over: theirs/big.pt | what its maker chose |  |  |"
    assert row in page


def test_a_model_without_records_has_no_history(tmp_path):
    (tmp_path / "model").mkdir()
    assert training_steps(tmp_path / "model") == []
    stage(tmp_path / "alone", "train.sh", "--data", "corpora/general/prepared")
    assert training_steps(tmp_path / "alone") == []  # its run is elsewhere


def test_no_folder_of_this_machine_gets_into_the_card(tmp_path):
    data = tmp_path / "private" / "prepared"
    data.mkdir(parents=True)
    stage(tmp_path / "run" / "model", "train.sh", "--data", str(data))
    (step,) = training_steps(tmp_path / "run" / "model")
    assert str(tmp_path) not in json.dumps(step) and step["learnt_from"].endswith("private")


def test_the_template_lies_in_the_package():
    assert (module.Path(module.__file__).parent / module.TEMPLATE).is_file()
