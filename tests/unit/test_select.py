"""dad-select: every line is accounted for, in order, whatever the steps and however many work."""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import processes
from data_prep.manifest import read_manifest
from fairseq_plugins.generation.nbest import Candidate, format_candidates
from fairseq_plugins.selection import select as select_module
from fairseq_plugins.selection.ledger import Tally, make_ledger, table
from fairseq_plugins.selection.select import select
from tests.fixtures.bitext import read_side, write_side

LANGS = ("de", "en")
SOURCES = [f"Das Haus Nummer {number} ist alt." for number in range(12)]
TARGETS = [f"The house number {number} is old." for number in range(12)]
REFERENCES = [f"House number {number} is rather old." for number in range(12)]


@pytest.fixture
def place(tmp_path):
    """A folder with source, references and plain candidates."""
    write_side(tmp_path / "src", SOURCES)
    write_side(tmp_path / "ref", REFERENCES)
    write_side(tmp_path / "hyp", TARGETS)
    return tmp_path


def write_nbest(path, lines):
    path.write_text("".join(format_candidates(*entry) for entry in enumerate(lines)))
    return path


def three_best(number):
    """Candidates of which the second is the reference and the third the most usual."""
    return [
        Candidate(f"House {number}.", -1.0 - number, 4),
        Candidate(REFERENCES[number], -4.0, 8),
        Candidate(TARGETS[number], -6.0, 8),
    ]


def run(place, out="out", candidates="hyp", references="ref", **options):
    return select(
        place / "src", place / candidates, place / out, LANGS,
        references=references and place / references, workers=1, **options,
    )  # fmt: skip


def pairs_of(folder):
    sides = [read_side(folder / f"train.{lang}") for lang in LANGS]
    lines = [line.split("\t") for line in read_side(folder / "train.lines")]
    return [
        (int(number), origin, src, tgt)
        for (number, origin), src, tgt in zip(lines, *sides, strict=True)
    ]


def spoil(place, **targets):
    """Replace targets: ``spoil(place, line_3="")``."""
    spoilt = list(TARGETS)
    for name, text in targets.items():
        spoilt[int(name.removeprefix("line_")) - 1] = text
    write_side(place / "hyp", spoilt)


# -- laws ----------------------------------------------------------------------------------

awkward = st.lists(
    st.tuples(
        st.sampled_from(["", "  ", "Das ist ein Haus.", "ja ja ja ja ja ja"]),
        st.lists(
            st.sampled_from(
                ["", " ", "This is a house.", "Das ist ein Haus.", "no " * 6, "x" * 90]
            ),
            min_size=3, max_size=3,
        ),
        st.sampled_from(["", "This is a house.", "It is one."]),
    ),
    min_size=1, max_size=9,
)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=awkward,
    steps=st.lists(
        st.sampled_from(
            ["first", "mbr:top=2", "best-of-n", "normalised-score", "empty", "repetition",
             "copy:max=0.5", "distance", "length-ratio:max=2", "score-percentile:reject=40"]
        ),
        max_size=5,
    ),
    rejected=st.sampled_from(["drop", "reference"]),
    weights=st.fixed_dictionaries(
        {"distilled": st.sampled_from([1.0, 1.5]), "references": st.sampled_from([0.0, 1.0, 0.4])}
    ),
)  # fmt: skip
def test_every_line_is_accounted_for(tmp_path_factory, lines, steps, rejected, weights):
    place = tmp_path_factory.mktemp("select")
    write_side(place / "src", [source for source, _, _ in lines])
    write_side(place / "ref", [reference for _, _, reference in lines])
    write_nbest(
        place / "hyp", [[Candidate(text, -2.0, 2) for text in texts] for _, texts, _ in lines]
    )
    select_module.BATCH_CANDIDATES, before = 6, select_module.BATCH_CANDIDATES
    try:
        ledger = run(place, steps=steps, rejected=rejected, mix=weights)
    except ValueError as error:
        assert "no pair is left" in str(error)
        assert not (place / "out").exists()
        return
    finally:
        select_module.BATCH_CANDIDATES = before
    reached = len(lines)
    for step in ledger["steps"]:
        assert step["read"] == reached
        assert step["kept"] + step["rejected"] == reached
        assert len(step["examples"]) == min(5, step["rejected"])
        assert step["share"] == pytest.approx(step["rejected"] / len(lines), abs=1e-6)
        reached = step["kept"]
    shares = ledger["kept_share"] + sum(step["share"] for step in ledger["steps"])
    assert shares == pytest.approx(1, abs=1e-5)
    assert ledger["kept"] == reached
    assert ledger["kept"] + sum(ledger["rejected"].values()) == ledger["read"] == len(lines)
    assert ledger == json.loads((place / "out" / "ledger.json").read_text(encoding="utf-8"))

    written = pairs_of(place / "out")
    assert Counter(origin for _, origin, _, _ in written) == +Counter(ledger["pairs"])
    assert [number for number, *_ in written] == sorted(number for number, *_ in written)
    for number, origin, src, tgt in written:
        source, texts, reference = lines[number - 1]
        assert src == source
        assert src.strip() and tgt.strip()
        assert tgt in (texts if origin == "distilled" else [reference])


def test_the_result_does_not_depend_on_the_number_of_workers(place, monkeypatch):
    monkeypatch.setattr(select_module, "BATCH_CANDIDATES", 3)
    monkeypatch.setattr(select_module, "BATCHES_FOR_A_PROCESS", 2)
    started = []
    in_processes = processes.in_processes
    monkeypatch.setattr(
        select_module, "in_processes",
        lambda number, _: started.append(number) or in_processes(number),
    )
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    results = []
    for workers in (1, 2):
        out = place / str(workers)
        ledger = select(
            place / "src", place / "hyp.nbest", out, LANGS, references=place / "ref",
            steps=["mbr", "repetition", "score-percentile:reject=20", "copy"],
            mix={"references": 0.5, "distilled": 1.5}, workers=workers,
        )  # fmt: skip
        results.append((ledger, pairs_of(out)))
    assert started == [1, 2]
    assert results[0] == results[1]


@pytest.mark.parametrize("weighed", ["references", "distilled"])
def test_the_same_seed_gives_the_same_bytes_and_another_another_sample(place, weighed):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(place, out=out, mix={weighed: 0.5}, seed=seed)
    texts = [(place / out / "train.en").read_bytes() for out in "abc"]
    assert texts[0] == texts[1] != texts[2]


# -- what is selected ----------------------------------------------------------------------


def test_without_steps_the_first_candidate_is_the_target(place):
    ledger = run(place)
    assert [entry[2:] for entry in pairs_of(place / "out")] == list(
        zip(SOURCES, TARGETS, strict=True)
    )
    assert ledger["kept"] == 12
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    ledger = run(place, out="n", candidates="hyp.nbest", steps=["repetition"])
    assert [entry[3] for entry in pairs_of(place / "n")] == [f"House {n}." for n in range(12)]
    assert ledger["steps"][0]["step"] == "first"


def test_a_filter_before_the_choice_judges_each_candidate(place):
    write_nbest(
        place / "hyp.nbest",
        [[Candidate("no " * 9, -1, 9), *three_best(number)] for number in range(12)],
    )
    ledger = run(place, candidates="hyp.nbest", steps=["repetition", "first"])
    assert [entry[3] for entry in pairs_of(place / "out")] == [f"House {n}." for n in range(12)]
    assert ledger["steps"][0]["candidates_kept"] == 36
    assert ledger["steps"][0]["rejected"] == 0


def test_several_chosen_candidates_are_several_pairs(place):
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    run(place, candidates="hyp.nbest", steps=["best-of-n:top=2"])
    written = pairs_of(place / "out")
    assert [number for number, *_ in written] == [n for n in range(1, 13) for _ in range(2)]
    assert [tgt for *_, tgt in written][::2] == REFERENCES


def test_a_choosing_step_tells_what_it_changed_and_gained(place):
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    ledger = run(place, candidates="hyp.nbest", steps=["best-of-n"])
    (step, _) = ledger["steps"]
    assert step["changed"] == 12
    assert step["mean_gain"] > 0
    assert step["ranked_by"].startswith("chrf|nrefs:1|case:mixed|eff:yes|nc:6|nw:0")


def test_the_limit_of_a_percentile_is_found_over_all_lines(place):
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    ledger = run(place, candidates="hyp.nbest", steps=["first", "score-percentile:reject=25"])
    assert [number for number, *_ in pairs_of(place / "out")] == list(range(1, 10))
    assert ledger["steps"][1]["least_kept"] == -(1 + 8) / 4


def test_a_rejected_line_is_dropped(place):
    spoil(place, line_3="", line_5="no " * 9)
    ledger = run(place, steps=["empty", "repetition"])
    assert [number for number, *_ in pairs_of(place / "out")] == [1, 2, 4, *range(6, 13)]
    assert ledger["rejected"] == {"dropped": 2, "reference": 0}
    assert [step["rejected"] for step in ledger["steps"]] == [1, 1, 0]
    assert ledger["steps"][1]["examples"] == [
        {"line": 5, "source": SOURCES[4], "target": "no " * 9, "why": "9 × 'no'"}
    ]


def test_or_it_falls_back_to_the_reference(place):
    spoil(place, line_3="", line_5="no " * 9)
    write_side(place / "ref", [*REFERENCES[:4], "", *REFERENCES[5:]])
    ledger = run(place, steps=["repetition"], rejected="reference")
    written = {number: rest for number, *rest in pairs_of(place / "out")}
    assert written[3] == ["reference", SOURCES[2], REFERENCES[2]]
    assert 5 not in written  # its reference has no text
    assert ledger["rejected"] == {"dropped": 1, "reference": 1}
    assert ledger["pairs"] == {"distilled": 10, "reference": 1}


def test_an_empty_side_is_found_at_the_end_if_by_no_step(place):
    spoil(place, line_3=" ")
    write_side(place / "src", ["", *SOURCES[1:]])
    ledger = run(place, mix={"references": 1}, rejected="reference")
    assert {number for number, *_ in pairs_of(place / "out")} == set(range(2, 13))
    assert ledger["steps"][-1]["rejected"] == 2
    assert [entry["why"] for entry in ledger["steps"][-1]["examples"]] == ["no source", "no target"]


def test_examples_are_cut_and_few(place):
    write_side(place / "src", ["s" * 300] * 12)
    write_side(place / "hyp", ["no " * 100] * 11 + ["fine"])
    (step, _) = run(place, steps=["repetition"])["steps"]
    assert len(step["examples"]) == 5
    assert {len(entry[side]) for entry in step["examples"] for side in ("source", "target")} == {
        200
    }


def test_examples_of_a_measured_step_are_few_too(place):
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    ledger = run(place, candidates="hyp.nbest", steps=["first", "score-percentile:reject=75"])
    assert ledger["steps"][1]["rejected"] == 9
    assert [entry["line"] for entry in ledger["steps"][1]["examples"]] == [4, 5, 6, 7, 8]


def test_lines_that_decoding_dropped_are_counted_apart(place):
    spoil(place, line_3="", line_5="")
    write_side(
        place / "hyp.ledger.tsv",
        [
            "line\twhat\taction\tpieces",
            "3\ttoo long\tdropped\t300",
            "5\tempty source\tleft empty\t0",
        ],
    )
    ledger = run(place, steps=["empty"])
    assert [(step["step"], step["rejected"]) for step in ledger["steps"][:2]] == [
        ("dropped in decoding", 1), ("empty", 1),
    ]  # fmt: skip
    assert str(place / "hyp.ledger.tsv") in read_manifest(place / "out")["inputs"]


def test_the_ledger_of_an_nbest_file_lies_beside_the_translations(place):
    write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    write_side(place / "hyp.ledger.tsv", ["line\twhat\taction\tpieces", "2\tfailed\tdropped\t9"])
    ledger = run(place, candidates="hyp.nbest")
    assert ledger["steps"][0]["rejected"] == 1


# -- mixing --------------------------------------------------------------------------------


def test_a_line_without_reference_gets_none_and_no_judgement_by_one(place):
    """Monolingual sources stand beside bitext, an empty line for the reference."""
    write_side(place / "ref", [*REFERENCES[:6], *[""] * 6])
    write_nbest(place / "nbest", map(three_best, range(12)))
    run(place, "best", "nbest", steps=["best-of-n:metric=chrf"])
    best = [tgt for *_, tgt in pairs_of(place / "best")]
    assert best[:6] == REFERENCES[:6]
    assert best[6:] == [three_best(number)[0].text for number in range(6, 12)]
    run(place, "far", steps=["distance:max=0"], rejected="reference", mix={"references": 1})
    expected = []
    for number, pair in enumerate(zip(SOURCES[:6], REFERENCES[:6], strict=True), start=1):
        expected += [(number, "reference", *pair)] * 2
    expected += [(number, "distilled", SOURCES[number - 1], TARGETS[number - 1])
                 for number in range(7, 13)]  # fmt: skip
    assert pairs_of(place / "far") == expected
    write_side(place / "hyp", SOURCES)
    ledger = run(place, "copies", steps=["copy"], rejected="reference")
    assert ledger["rejected"] == {"reference": 6, "dropped": 6}


def test_references_are_added_with_their_weight(place):
    spoil(place, line_3="")
    ledger = run(place, mix={"references": 2, "distilled": 1})
    counts = Counter((number, origin) for number, origin, *_ in pairs_of(place / "out"))
    assert counts == {
        **{(number, "distilled"): 1 for number in range(1, 13) if number != 3},
        **{(number, "reference"): 2 for number in range(1, 13)},
    }
    assert ledger["pairs"] == {"distilled": 11, "reference": 24}


def test_a_fraction_is_a_sample_without_replacement(place):
    ledger = run(place, mix={"references": 0.5, "distilled": 1.25})
    counts = Counter((number, origin) for number, origin, *_ in pairs_of(place / "out"))
    assert ledger["pairs"] == {"distilled": 15, "reference": 6}
    assert max(counts[number, "reference"] for number in range(1, 13)) == 1
    assert {counts[number, "distilled"] for number in range(1, 13)} == {1, 2}


def test_one_file_may_be_both_candidates_and_references(place):
    ledger = run(place, references="hyp", mix={"references": 1})
    assert ledger["pairs"] == {"distilled": 12, "reference": 12}


def test_references_alone_are_possible(place):
    ledger = run(place, mix={"references": 1, "distilled": 0})
    assert [tgt for *_, tgt in pairs_of(place / "out")] == REFERENCES
    assert ledger["pairs"] == {"distilled": 0, "reference": 12}


def test_a_tag_tells_what_the_target_is(place):
    spoil(place, line_3="")
    run(
        place, mix={"references": 1}, rejected="reference",
        tags={"distilled": "<kd>", "reference": "<ref>"},
    )  # fmt: skip
    written = pairs_of(place / "out")
    for number, origin, src, _ in written:
        tag = {"distilled": "<kd>", "reference": "<ref>"}[origin]
        assert src == f"{tag} {SOURCES[number - 1]}"
    assert [origin for number, origin, *_ in written if number == 3] == ["reference"] * 2


# -- the folder ----------------------------------------------------------------------------


def test_the_folder_is_whole_and_says_how_it_was_made(place):
    run(place, steps=["repetition", "mbr"], mix={"references": 0.5}, seed=7)
    assert {path.name for path in (place / "out").iterdir()} == {
        "train.de", "train.en", "train.lines", "ledger.json", "manifest.json",
    }  # fmt: skip
    record = read_manifest(place / "out")
    assert record["settings"]["steps"] == ["repetition:max=4", "mbr:metric=chrf,top=1"]
    assert record["settings"]["mix"] == {"distilled": 1.0, "references": 0.5}
    assert record["seed"] == 7
    assert set(record["inputs"]) == {str(place / name) for name in ("src", "hyp", "ref")}
    assert record["counts"]["pairs"] == {"distilled": 12, "reference": 6}


def test_a_failure_leaves_nothing_behind(place, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "train.en")

    monkeypatch.setattr(select_module, "make_ledger", fail)
    with pytest.raises(OSError):
        run(place, steps=["length-ratio"])
    assert {path.name for path in place.iterdir()} == {"src", "hyp", "ref"}


def test_an_existing_folder_stays_unless_told_otherwise(place):
    run(place)
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(place, steps=["copy"])
    run(place, steps=["first"], overwrite=True)
    assert read_manifest(place / "out")["settings"]["steps"] == ["first"]


def test_a_ledger_that_does_not_sum_is_our_mistake():
    step = Tally("copy", read=10, kept=8)
    outcome = {"dropped": 2, "reference": 0}
    make_ledger(10, [step], outcome, {})
    for lines, tallies, rejected in (
        (11, [step], outcome),
        (10, [step, Tally("empty", read=7, kept=7)], outcome),
        (10, [step], {"dropped": 1, "reference": 0}),
        (10, [Tally("a", read=9, kept=8), Tally("b", read=9, kept=8)], outcome),
    ):
        with pytest.raises(AssertionError):
            make_ledger(lines, tallies, rejected, {})


def test_the_table_shows_each_step_and_sums_to_all_lines(place):
    spoil(place, line_3="", line_5="no " * 9)
    ledger = run(place, steps=["empty", "repetition"], rejected="reference")
    text = table(ledger)
    for words in ("empty", "repetition:max=4", "8.33 %", "83.33 %", "2 fell back", "12 (10 dist"):
        assert words in text


# -- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, lines, message",
    [
        ("ref", REFERENCES[:5], "ref ends after line 5, but"),
        ("ref", [*REFERENCES, "one more"], "src ends after line 12, but"),
        ("hyp", TARGETS[:5], "hyp ends after line 5, but"),
        ("hyp", [*TARGETS, "one more"], "src ends after line 12, but"),
    ],
)
def test_a_file_of_another_length_is_named(place, name, lines, message):
    write_side(place / name, lines)
    with pytest.raises(ValueError) as raised:
        run(place)
    assert message in str(raised.value)
    assert not (place / "out").exists()


def test_a_missing_candidate_is_noticed_before_the_work_begins(place, monkeypatch):
    monkeypatch.setattr(select_module, "in_processes", lambda *_: pytest.fail("work began"))
    path = write_nbest(place / "hyp.nbest", [three_best(number) for number in range(12)])
    lines = path.read_text().splitlines()
    write_side(path, [*lines[:-2], lines[-1]])
    with pytest.raises(ValueError, match="source line 11 .* has 2 candidates"):
        run(place, candidates="hyp.nbest", steps=["mbr"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": ["best-of-n"], "references": None}, "--step best-of-n needs --references"),
        ({"steps": ["distance"], "references": None}, "--step distance needs --references"),
        ({"rejected": "reference", "references": None}, "--rejected reference needs --references"),
        ({"mix": {"references": 1}, "references": None}, "--mix references needs --references"),
        ({"steps": ["model-score"]}, "--step model-score needs the teacher's scores"),
        ({"steps": ["score-percentile"]}, "hyp is plain text; decode with dad-generate --n-best"),
        ({"steps": ["mbr:top=0"]}, "top is 1 or more, not 0"),
        ({"rejected": "keep"}, "--rejected is one of drop, reference, not keep"),
        ({"mix": {"general": 1}}, "not general"),
        ({"tags": {"distilled": "a b"}}, "a tag is one word, not 'a b'"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_named_before_anything_is_read(
    place, monkeypatch, options, message
):
    monkeypatch.setattr(select_module, "read_records", lambda *_: pytest.fail("was read"))
    with pytest.raises(ValueError) as raised:
        run(place, **options)
    assert message in str(raised.value)
    assert not (place / "out").exists()


def test_an_empty_source_is_named(place):
    for name in ("src", "hyp", "ref"):
        write_side(place / name, [])
    with pytest.raises(ValueError, match="src is empty"):
        run(place)


def test_nothing_left_is_an_error_that_shows_where_it_went(place):
    write_side(place / "hyp", [""] * 12)
    with pytest.raises(ValueError, match="no pair is left of the 12 lines") as raised:
        run(place, steps=["empty"])
    assert "100.00 %" in str(raised.value)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    "lines, message",
    [
        (["line\taction"], "line 1: expected the columns line what action pieces"),
        (["line\twhat\taction\tpieces", "x\ttoo long\tdropped\t3"], "line 2: expected"),
        (["line\twhat\taction\tpieces", "13\ttoo long\tdropped\t3"], "belongs to another file"),
    ],
)
def test_a_strange_decode_ledger_is_named(place, lines, message):
    write_side(place / "hyp.ledger.tsv", lines)
    with pytest.raises(ValueError, match="hyp.ledger.tsv") as raised:
        run(place)
    assert message in str(raised.value)
