"""data_prep/catalogue.py, known_sets.py: what there is, and that all of it can be found."""

import pytest

from data_prep.catalogue import COLUMNS, OURS, read_catalogue, read_catalogues, select
from data_prep.fetch import resolve
from data_prep.known_sets import find_sets

PAIRS = ("de-en", "ru-en", "zh-en")
ROW = {
    "id": "a", "pair": "de-en", "domain": "medical", "role": "train", "source": "file:a.tmx",
    "licence": "CC0", "citation": "",
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(*rows, columns=COLUMNS, name="mine.tsv"):
        lines = ["\t".join(columns), *("\t".join((ROW | row).values()) for row in rows)]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


# -- ours ----------------------------------------------------------------------------------


def test_every_set_of_our_catalogue_is_known_without_mtdatas_index(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.known_sets.ask_mtdata", None)
    sets = resolve(read_catalogue(OURS), tmp_path)  # checks languages too
    assert len(sets) > 60
    for item in sets:
        assert bool(item.urls) == (item.row.kind == "mtdata")
        assert all(url.startswith(("http://", "https://")) for url in item.urls)


@pytest.mark.parametrize("pair", PAIRS)
def test_each_pair_has_general_text_talks_and_more_domains(pair):
    rows = select(read_catalogue(OURS), pair)
    roles = {}
    for row in rows:
        roles.setdefault(row.domain, set()).add(row.role)
    assert roles["general"] == roles["ted"] == {"train", "dev", "test"}
    assert sum(row.domain == "general" and row.role == "train" for row in rows) > 2
    assert {"medical", "it", "religion", "patents"} <= roles.keys()
    assert all(row.licence for row in rows)


def test_talks_have_documents_and_are_detokenised():
    for row in read_catalogue(OURS):
        if row.domain == "ted":
            assert row.options["document"] == "1" and row.options["detokenise"] == "moses"


# -- own catalogues ------------------------------------------------------------------------


def test_a_row_is_read_with_its_settings(write):
    (row,) = read_catalogue(write({"source": "file:x y.tsv?de=1&en=3&document=2&absent=skip"}))
    assert (row.kind, row.name, row.langs) == ("file", "x y.tsv", ("de", "en"))
    assert row.options == {"de": "1", "en": "3", "document": "2", "absent": "skip"}
    assert row.notes == ""


def test_notes_empty_lines_and_other_columns_are_allowed(tmp_path):
    path = tmp_path / "mine.tsv"
    header, row = ["mood", *COLUMNS, "notes"], ["good", *ROW.values(), '"n']
    path.write_text("\ufeff" + "\n\n".join(map("\t".join, (header, row))), encoding="utf-8")
    (row,) = read_catalogue(path)
    assert row.id == "a" and row.notes == '"n'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": ""}, "line 2: the id is empty"),
        ({"licence": ""}, "the licence is empty"),
        ({"pair": "de"}, "a pair is two languages such as de-en, not 'de'"),
        ({"pair": "de-de"}, "a pair is two languages"),
        ({"pair": "../-en"}, "a pair is two languages"),
        ({"role": "valid"}, "a role is train, dev, test, not 'valid'"),
        ({"source": "a.tmx"}, "a source is mtdata:ID or file:PATH, not 'a.tmx'"),
        ({"source": "mtdata:"}, "a source is mtdata:ID or file:PATH"),
        ({"source": "mtdata:x?member=a"}, "member= is no setting of a mtdata source"),
        ({"source": "file:a.tsv?fr=1"}, "fr= is no setting.*absent, de, .*member"),
        ({"source": "file:a.tsv?de=0&en=1"}, "de= is the number of a column from 1, not '0'"),
        ({"source": "file:a.tsv?de=x&en=1"}, "de= is the number of a column from 1, not 'x'"),
        ({"source": "file:a.tsv?de=1"}, "the columns of both languages, or of none"),
        ({"source": "file:a.tmx?absent=no"}, "absent= is skip, not 'no'"),
        ({"source": "file:a.tmx?detokenise=nltk"}, "detokenise= is moses, not 'nltk'"),
        ({"source": "file:a.tmx?document="}, "document= is"),
    ],
)
def test_a_row_that_cannot_be_meant_so_is_an_error_that_names_its_line(write, row, message):
    with pytest.raises(ValueError, match=f"mine.tsv, line 2.*{message}|{message}"):
        read_catalogue(write(row))


def test_a_catalogue_without_its_columns_rows_or_file_is_an_error(write, tmp_path):
    with pytest.raises(ValueError, match="line 1: no column citation; a catalogue is a TSV file"):
        read_catalogue(write(columns=COLUMNS[:-1]))
    with pytest.raises(ValueError, match="names no set"):
        read_catalogue(write())
    with pytest.raises(ValueError, match="line 2: 7 columns, the header has 8"):
        read_catalogue(write({}, columns=(*COLUMNS, "notes")))
    with pytest.raises(FileNotFoundError, match="none.tsv"):
        read_catalogue(tmp_path / "none.tsv")


def test_an_id_stands_once(write):
    with pytest.raises(ValueError, match="line 3: a stands in line 2 already"):
        read_catalogue(write({}, {}))
    one, two = write({}), write({}, name="other.tsv")
    with pytest.raises(ValueError, match="a stands in .*mine.tsv and in .*other.tsv"):
        read_catalogues([one, two])
    assert len(read_catalogues([OURS, one])) == len(read_catalogue(OURS)) + 1


# -- choosing ------------------------------------------------------------------------------


def test_sets_are_chosen_by_domain_or_id_in_the_order_of_the_catalogue(write):
    rows = read_catalogue(
        write({}, {"id": "b", "domain": "it"}, {"id": "c", "domain": "it"}, {"id": "d"},
              {"id": "e", "pair": "ru-en"})
    )  # fmt: skip
    chosen = select(rows, "de-en", domains=["it"], ids=["a"])
    assert [row.id for row in chosen] == ["a", "b", "c"]
    assert [row.id for row in select(rows, "en-ru")] == ["e"]
    assert len(select(rows)) == 5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"pair": "fr-en"}, "no set for fr-en; its pairs: de-en, ru-en, zh-en"),
        ({"pair": "de-en", "domains": ["medial"]}, "no domain medial for de-en; .*law, medical"),
        ({"pair": "de-en", "ids": ["ru-en/kde4"]}, "no set ru-en/kde4 for de-en; its ids: de-en"),
        ({"domains": ["x"]}, "no domain x; its domains"),
    ],
)
def test_what_is_unknown_is_an_error_that_lists_what_there_is(choice, message):
    with pytest.raises(ValueError, match=message):
        select(read_catalogue(OURS), **choice)


# -- mtdata's answers ----------------------------------------------------------------------


def test_mtdata_is_asked_once_for_what_is_not_shipped(tmp_path, monkeypatch):
    asked = []

    def answer(ids, cache):
        asked.append(ids)
        return {name: {"did": name, "url": "http://a.example/b.tsv.gz"} for name in ids}

    monkeypatch.setattr("data_prep.known_sets.ask_mtdata", answer)
    ours = "OPUS-emea-v3-deu-eng"
    for name in ("X-one-1-deu-eng", "X-two-1-deu-eng"):
        for _ in range(2):
            found = find_sets([ours, name], tmp_path / "new")
            assert list(found) == [ours, name] and str(found[name].did) == name
    assert asked == [["X-one-1-deu-eng"], ["X-two-1-deu-eng"]]
    assert find_sets(["X-one-1-deu-eng"], tmp_path / "new")["X-one-1-deu-eng"].ext == "tsv.gz"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mtdata:OPUS-emea-v3-deu-eng", "is to be ru-en, but OPUS-emea-v3-deu-eng is deu-eng"),
        ("file:a.doc", "two text files have {lang} in their name; else it is a .tsv, .csv or .tmx"),
        ("file:a.txt", "two text files have {lang}"),
        ("file:a.zip", "an archive needs member="),
        ("file:a.{lang}.zip", "an archive needs member="),
        ("file:a.tmx?member=b.tmx", "member= is for archives"),
        ("file:a.tsv?document=name", "document= is the number of a column, not 'name'"),
    ],
)
def test_a_source_that_cannot_be_read_is_an_error(write, tmp_path, source, message):
    rows = read_catalogue(write({"pair": "ru-en", "source": source}))
    with pytest.raises(ValueError, match=message):
        resolve(rows, tmp_path)
