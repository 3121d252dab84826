"""RESULTS.md: written by the harness from finished runs, and by nobody's hand."""

import shutil
from pathlib import Path

import pytest

from data_prep.manifest import read_json, write_json
from data_prep.pipeline.graph import PlannedStage, read_plan, write_plan
from fairseq_plugins.report import results
from fairseq_plugins.report.comparisons import signed
from fairseq_plugins.report.findings import find
from fairseq_plugins.report.run import chosen, open_run
from tests.fixtures.run_folder import (
    DOMAIN,
    ROWS,
    STEPS,
    add_domain,
    finish,
    make_run,
    seeds_of,
)

REPOSITORY = Path(__file__).parents[2]
LABEL = "Toy text: shows how the parts hang together."
COMMAND = [
    "/home/me/dad/recipes/chain.sh", "--config", "/home/me/dad/recipes/de-en/config.sh",
    "--general", "/data/corpora/de-en/general", "--domain", "medical=/data/corpora/de-en/med",
    "--work", "/somewhere/else", "--", "--lr", "0.0005",
]  # fmt: skip
PLACES = {"CORPORA": "/data/corpora"}
MACHINE = {
    "cpu": "a processor", "cores": 2, "memory_bytes": 8 * 2**30, "gpus": ["a GPU", "a GPU"],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = [*ROWS[:3], *seeds_of("7", (1, 2)), *seeds_of("9", (1, 2))]
    work = make_run(tmp_path_factory.mktemp("runs") / "run", rows=rows, steps=STEPS)
    return with_command(work, COMMAND)


@pytest.fixture
def work(made, tmp_path):
    """A copy of the run that a test may spoil."""
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """(file, text) of RESULTS.md; tests leave the file as it is."""
    path = tmp_path_factory.mktemp("recipes") / "RESULTS.md"
    return path, results.write(path, [open_run(made)], [LABEL], PLACES)


def with_command(work, command):
    plan = read_json(work / "plan/run.json")
    write_json(work / "plan/run.json", {**plan, "command": command})
    return work


def table_lines(text, heading):
    """Cells of the table whose header line holds a word."""
    lines = text.split("\n")
    first = next(place for place, line in enumerate(lines) if heading in line and line[:1] == "|")
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


# -- the file ------------------------------------------------------------------------------


def test_the_same_run_gives_the_same_bytes(made, written, tmp_path):
    again = tmp_path / "RESULTS.md"
    results.write(again, [open_run(made)], [LABEL], PLACES)
    assert again.read_bytes() == written[0].read_bytes()


def test_what_was_written_is_known_as_untouched(written):
    path, text = written
    assert results.check(path) is True
    assert path.read_text(encoding="utf-8") == text
    assert not list(path.parent.glob("*.part"))


@pytest.mark.parametrize(
    "old, new",
    [("| 9 |", "| 9  |"), ("significant", "Significant"), ("# What", "#  What"),
     ("0.50 M", "0.51 M"), ("\n## Remarks", "\nand a number: 7\n\n## Remarks")],
)  # fmt: skip
def test_any_change_above_the_remarks_is_noticed(written, tmp_path, old, new):
    text = written[1]
    assert old in text
    path = tmp_path / "RESULTS.md"
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")
    assert results.check(path) is False


def test_other_line_ends_are_a_change(written, tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_bytes(written[0].read_bytes().replace(b"\n", b"\r\n"))
    assert results.check(path) is False


def test_remarks_are_kept_byte_by_byte(made, written, tmp_path):
    path = tmp_path / "RESULTS.md"
    remarks = "## Remarks\n\nDas lief über Nacht.\n\n\n### More\n\n| a | b |\n   \nno end"
    path.write_text(written[1].partition("## Remarks")[0] + remarks, encoding="utf-8")
    assert results.check(path) is True
    results.write(path, [open_run(made)], ["Another label."], PLACES)
    text = path.read_text(encoding="utf-8")
    assert text.endswith(remarks) and "Another label." in text and text.count(remarks) == 1
    assert results.check(path) is True


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda text: "# By hand\n\n## Remarks\n\nhello\n", "was not written by dad-report"),
        (lambda text: text.replace("## medical", "## Medical", 1), "was changed above"),
        (lambda text: text.replace("\n## Remarks", "\n## My remarks", 1), "was changed above"),
    ],
)
def test_what_people_wrote_elsewhere_is_never_overwritten(
    made, written, tmp_path, spoil, message
):
    path = tmp_path / "RESULTS.md"
    path.write_text(spoil(written[1]), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=message):
        results.write(path, [open_run(made)], [LABEL], PLACES)
    assert path.read_bytes() == before


def test_committed_results_are_as_they_were_written():
    files = sorted(REPOSITORY.glob("recipes/*/RESULTS.md"))
    assert files
    for path in files:
        assert results.check(path) is not False, path
        if results.check(path):
            results.refuse_paths(path.read_text(encoding="utf-8"), path)


# -- what it says --------------------------------------------------------------------------


def test_every_number_of_the_table_is_that_of_the_report(made, written):
    found = find(open_run(made), DOMAIN)
    rows = {row[0]: row for row in table_lines(written[1], "trained on")[1:]}
    assert list(rows) == [group["name"] for group in found["groups"]]
    for group in found["groups"]:
        scores = group["in_domain"]["beam"]
        own = rows[group["name"]]
        assert f"{scores['bleu']['score']:.1f} ± {scores['bleu']['interval']:.1f}" in own[4]
        assert f"{scores['chrf']['score']:.1f} ±" in own[6]
        assert own[2] == f"{group['parameters'] / 1e6:.2f} M"


def test_each_seed_has_its_score(written):
    seeds = {row[0]: row for row in table_lines(written[1], "each seed")[1:]}
    assert seeds.keys() == {"7", "9"}
    assert seeds["9"][2].count("seed 1: ") == seeds["9"][2].count("seed 2: ") == 1
    assert " ± " in seeds["9"][1]


def test_one_seed_needs_no_table_of_seeds(tmp_path):
    work = with_command(make_run(tmp_path / "run"), COMMAND)
    text = results.write(tmp_path / "R.md", [open_run(work)], [LABEL], PLACES)
    assert "BLEU of each seed" not in text and "trained on" in text


def test_steps_have_their_p_values_and_claims_their_answer(written):
    steps = table_lines(written[1], "outcome")[1:]
    assert [row[0] for row in steps] == [words for *_, words in STEPS]
    assert all(row[4].startswith("p = ") for row in steps)
    claims = table_lines(written[1], "BLEU here")[1:]
    assert len(claims) == 2
    assert {row[1] for row in claims} == {DOMAIN} and all(row[6] for row in claims)


def test_corpora_are_told_after_cleaning(written):
    rows = {row[0]: row[1:] for row in table_lines(written[1], "pairs before cleaning")[1:]}
    assert rows["medical"] == ["100", "98", "–", "40"]
    assert rows["distilled/medical/medical (a teacher's output)"] == ["", "90", "", ""]


def test_a_run_says_what_it_is_and_what_it_was_made_by(written):
    text = written[1]
    for told in (f"**{LABEL}**", "Seeds: 1, 2", "Commit: 0123456789ab", "python 3.11.7",
                 "teacher large, 4.00 M", "student tiny, 0.50 M", "everything else (overhead)",
                 "nrefs:1\\|bs:20"):  # fmt: skip
        assert told in text


@pytest.mark.parametrize(
    "planned, began",
    [("2026-01-01T00:59:30Z", "00:58:14"),  # gone on with; the longest stage took 106 s
     ("2026-01-01T00:30:00Z", "00:30:00"), (None, "00:58:14")],
)  # fmt: skip
def test_a_run_began_when_it_was_first_started(work, tmp_path, planned, began):
    write_json(work / "plan/run.json", {**read_json(work / "plan/run.json"), "started": planned})
    text = results.write(tmp_path / "RESULTS.md", [open_run(work)], [LABEL], PLACES)
    assert f"- Run from 2026-01-01T{began}Z to 2026-01-01T01:00:00Z\n" in text


def test_a_dirty_commit_is_said(work):
    record = read_json(work / "teacher/general/stage.json")
    write_json(work / "teacher/general/stage.json", {**record, "commit": "0123456789ab-dirty"})
    text = results.write(work / "R.md", [open_run(work)], [LABEL], PLACES)
    assert "0123456789ab, 0123456789ab with changes that were not committed\n" in text


def test_machines_are_told_by_what_ran_on_them(work):
    record = read_json(work / "teacher/general/stage.json")
    write_json(work / "teacher/general/stage.json", {**record, "machine": MACHINE})
    told = results.machines(open_run(work).stages())
    assert told[1] == (
        "2 cores of a processor, 8 GiB of memory, 2 × a GPU", {"trainings": 1}, 1,
    )  # fmt: skip
    assert told[0][0] == "a machine that was not recorded"
    assert results._machine({**MACHINE, "gpus": []}).endswith(", no GPU")


@pytest.mark.parametrize(
    "training, validations, tokens",
    [
        ([(50, 10.0), (100, 20.0)], [(100, 5)], 50 * 10 + 50 * 20),
        ([(50, 10.0), (100, 20.0)], [(120, 5)], 50 * 10 + 70 * 20),  # after the last log line
        ([(50, 10.0)], [], 500),
        ([(50, None)], [(50, 5)], None),
        ([], [(50, 5)], None),
    ],
)
def test_target_tokens_are_those_of_all_updates(training, validations, tokens):
    curve = {
        "training": [{"update": update, **({"wpb": wpb} if wpb else {})}
                     for update, wpb in training],
        "validations": [{"update": update, "bleu": bleu} for update, bleu in validations],
    }  # fmt: skip
    assert results.target_tokens(curve) == tokens


def test_several_runs_have_a_section_and_a_folder_each(made, tmp_path):
    runs = [open_run(made), open_run(make_run(tmp_path / "run"))]
    text = results.write(tmp_path / "R.md", runs, ["The\nfirst.", "The second."], PLACES)
    assert text.count("\n## medical: students tiny\n") == 2
    assert text.index("**The first.**") < text.index("**The second.**")
    assert "--work $WORK1 --label 'The first.' --work $WORK2 --label 'The second.'" in text
    assert "--work $WORK1 -- --lr 0.0005\n" in text and "run.sh --work $WORK2\n" in text


def test_domains_stand_side_by_side_first(work, tmp_path):
    add_domain(work, "law")
    text = results.write(tmp_path / "RESULTS.md", [open_run(work)], [LABEL], PLACES)
    found = {name: find(open_run(work), name) for name in (DOMAIN, "law")}
    models = table_lines(text, "| model | medical | law |")
    assert [line[0] for line in models[1:]] == [
        group["name"] for group in found[DOMAIN]["groups"] if group["in_domain"]
    ]
    tables = {name: table_lines(text, f"BLEU {name}") for name in found}
    assert models[-1] == ["9", *(
        table[-1][table[0].index(f"BLEU {name}")] for name, table in tables.items()
    )]  # fmt: skip
    steps = table_lines(text, "| step | medical | law |")
    assert [line[1:] for line in steps[1:]] == [
        [f"{signed(found[name]['steps'][number]['difference'])}, "
         f"{found[name]['steps'][number]['outcome']}" for name in found]
        for number in range(len(STEPS))
    ]  # fmt: skip
    assert text.index("### All domains") < text.index("paid in") < text.index("### medical")


def test_one_domain_needs_no_comparison_of_domains(written):
    assert "All domains" not in written[1] and "BLEU by domain" not in written[1]


# -- no path of this machine ---------------------------------------------------------------


def test_the_command_can_be_given_anywhere(written, made):
    text = written[1]
    assert (
        "bash recipes/chain.sh --config recipes/de-en/config.sh --general "
        "$CORPORA/de-en/general --domain medical=$CORPORA/de-en/med --work $WORK -- --lr 0.0005\n"
    ) in text
    assert str(made) not in text and "/data" not in text and "/home" not in text
    assert "--place CORPORA=$CORPORA" in text


@pytest.mark.parametrize(
    "word, shown",
    [
        ("/data/corpora", "$C"),
        ("/data/corpora/x", "$C/x"),
        ("a=/data/corpora/x,/data/corpora", "a=$C/x,$C"),
        ("/data/corpora2", "/data/corpora2"),  # another folder
        ("my/data/corpora", "my/data/corpora"),
        ("/data/corpora/own/x", "$OWN/x"),  # the longer of two that fit
        ("/data/corpora/a b", '"$C/a b"'),
        ('/data/corpora/a"b', '"$C/a\\"b"'),
        ("$C", "$C"),
        ("$HOME", "'$HOME'"),  # is no place
        ("a b", "'a b'"),
    ],
)
def test_places_take_the_place_of_paths(word, shown):
    places = {"C": "/data/corpora", "OWN": "/data/corpora/own"}
    assert results.portable(["dad", word], places) == f"dad {shown}"


@pytest.mark.parametrize(
    "first, shown",
    [
        ("/home/me/dad/recipes/de-en/run.sh", "bash recipes/de-en/run.sh recipes/x"),
        ("recipes/de-en/run.sh", "bash recipes/de-en/run.sh /home/me/dad/recipes/x"),
        ("dad/recipes/de-en/run.sh", "bash recipes/de-en/run.sh /home/me/dad/recipes/x"),
    ],
)
def test_the_reader_stands_in_the_repository(first, shown):
    assert results.portable([first, "/home/me/dad/recipes/x"], {}) == shown


@pytest.mark.parametrize(
    "text, is_refused",
    [
        ("see /home/me/x", True), ("`/tmp/x`", True), ("a=/tmp", True), ("~/x", True),
        ("--general /data/x", True), ("C:\\Users\\me", True), ("('/etc/x')", True),
        ("1,005 sentences/s and 1/8 of it", False), ("$CORPORA/de-en", False),
        ("https://example.org/x", False), ("teacher/general", False), ("4 / 5", False),
    ],
)  # fmt: skip
def test_paths_of_a_machine_are_told_from_other_slashes(text, is_refused):
    if is_refused:
        with pytest.raises(ValueError, match="paths of this machine.*--place"):
            results.refuse_paths(text, "R.md")
    else:
        results.refuse_paths(text, "R.md")
        assert not results._ABSOLUTE.search(text)


@pytest.mark.parametrize("places, label", [({}, LABEL), (PLACES, "Run in /home/me/x.")])
def test_a_path_that_would_remain_stops_it_before_the_work(made, tmp_path, monkeypatch, places,
                                                            label):  # fmt: skip
    monkeypatch.setattr(results.findings, "find", lambda *_: pytest.fail("that is the work"))
    with pytest.raises(ValueError, match="would hold paths of this machine"):
        results.write(tmp_path / "R.md", [open_run(made)], [label], places)
    assert not (tmp_path / "R.md").exists()


def test_a_path_in_what_a_run_found_stops_it_too(work, tmp_path):
    finish(work / "corpora/general/text", ["x"], 1.0)
    record = read_json(work / "corpora/general/text/stage.json")
    record["machine"] = {**MACHINE, "cpu": "one of /home/me/x"}
    write_json(work / "corpora/general/text/stage.json", record)
    with pytest.raises(ValueError, match="/home/me/x"):
        results.write(tmp_path / "R.md", [open_run(work)], [LABEL], PLACES)
    assert not (tmp_path / "R.md").exists()


@pytest.mark.parametrize("entry", ["CORPORA", "corpora=/x", "C=x", "=/x", "WORK=/x", "WORK2=/x"])
def test_a_place_is_a_name_and_a_path(entry):
    with pytest.raises(ValueError, match="--place"):
        results.read_places([entry])
    assert results.read_places(["C=/x/", "D=/y"]) == {"C": "/x", "D": "/y"}
    with pytest.raises(ValueError, match="taken"):
        results.read_places(["C=/x", "C=/y"])


# -- the command ---------------------------------------------------------------------------


def test_an_unfinished_run_has_no_results(dad_report, work, tmp_path):
    plan = [*read_plan(work), PlannedStage(9, "trainings", f"student/tiny/8/{DOMAIN}")]
    write_plan(work / "plan/stages.json", plan)
    status, _, complaint = dad_report(
        "--results", tmp_path / "R.md", "--work", work, "--label", LABEL,
        "--place", "CORPORA=/data/corpora",
    )  # fmt: skip
    assert status == 1 and "is not finished: of medical" in complaint
    assert not (tmp_path / "R.md").exists()


def test_the_command_writes_and_checks(dad_report, made, tmp_path):
    path = tmp_path / "recipes/de-en/RESULTS.md"
    path.parent.mkdir(parents=True)
    words = ["--results", path, "--work", made, "--label", LABEL, "--place",
             "CORPORA=/data/corpora"]  # fmt: skip
    status, said, _ = dad_report(*words, "--domain", DOMAIN)
    assert status == 0 and str(path) in said
    assert "dad-report --results recipes/de-en/RESULTS.md --work $WORK" in path.read_text()
    assert "--domain medical\n" in path.read_text()
    assert dad_report("--check-results", path)[:2] == (0, f"{path}: as dad-report wrote it\n")
    path.write_text(path.read_text().replace("98", "99"), newline="\n")
    by_hand = tmp_path / "HAND.md"
    by_hand.write_text("# Mine\n")
    assert dad_report("--check-results", by_hand)[:2] == (0, f"{by_hand}: written by hand\n")
    status, said, complaint = dad_report("--check-results", by_hand, path)
    assert status == 1 and "not as dad-report wrote it" in complaint and said == ""


@pytest.mark.parametrize(
    "words, status, message",
    [
        (["--results", "R.md"], 2, "goes with --work WORK --label TEXT"),
        (["--results", "R.md", "--work", "a", "--work", "b", "--label", "x"], 2, "once for each"),
        (["--results", "R.md", "--work", "nowhere", "--label", "x"], 1, "there is no folder"),
        (["--work", "a", "--work", "b"], 2, "says which run"),
        (["--work", "a", "--label", "x"], 2, "go with --results"),
        (["--work", "a", "--place", "C=/x"], 2, "go with --results"),
        (["--results", "R.md", "--work", "a", "--label", "x", "--watch"], 2, "goes with no"),
        (["--check-results", "nowhere.md"], 1, "nowhere.md"),
    ],
)
def test_mistakes_are_told(dad_report, words, status, message):
    found, _, complaint = dad_report(*words)
    assert found == status and message in complaint


@pytest.mark.parametrize(
    "wanted, found", [(None, ["it", "law"]), ("law", ["law"]), ("law,it", ["law", "it"])]
)
def test_domains_are_chosen_by_names_joined_by_commas(wanted, found):
    assert chosen(["it", "law"], wanted, "a run") == found


def test_a_domain_that_is_not_there_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match="no domain 'law'"):
        results.write(tmp_path / "R.md", [open_run(made)], [LABEL], PLACES, "law")
    assert not (tmp_path / "R.md").exists()
