"""data_prep/parallel_files.py: pairs out of every kind of file, in step, or a clear error.

Sentences: tatoeba.org (CC BY 2.0 FR).
"""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile

import pytest
from backports import zstd

from data_prep.catalogue import Row
from data_prep.fetch import resolve
from data_prep.known_sets import find_sets
from data_prep.parallel_files import Damaged, kind_of, read_pairs

DE = ["Wie geht's?", "Ich\u2028weiß\rnicht.", "", "Guten Tag!"]
EN = ["How are you?", "I don't\x85know.", "Hello!", "Good\fday!"]
PAIRS = list(zip(DE, EN, [None] * 4, strict=True))
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress,
        "": bytes}  # fmt: skip


def lines(texts):
    return "".join(f"{text}\n" for text in texts).encode()


@pytest.fixture
def read(tmp_path):
    """Pairs of a source; files are given as {name: bytes}."""

    def read(source, files, pair="de-en"):
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        row = Row("a", pair, "d", "train", f"file:{source}", "", "", catalogue=tmp_path / "c.tsv")
        (item,) = resolve([row], tmp_path)
        return list(read_pairs(item.files, item.entry))

    return read


def packed(name, members):
    """An archive by its name, zip or tar, of {name: bytes}."""
    file = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    else:
        with tarfile.open(fileobj=file, mode="w" if name.endswith(".tar") else "w:gz") as archive:
            for member, data in members.items():
                about = tarfile.TarInfo(member)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
    return file.getvalue()


def tmx(*units, body="<body>", encoding="utf-8"):
    text = f'<?xml version="1.0" encoding="{encoding}"?><tmx version="1.4"><header/>{body}'
    return (text + "".join(units) + "</body></tmx>").encode(encoding)


def unit(de, en, first="de", second="en-GB", before=""):
    variants = [
        f'<tuv xml:lang="{lang}"><seg>{text}</seg></tuv>'
        for lang, text in ((first, de), (second, en)) if text is not None
    ]  # fmt: skip
    return f"<tu>{before}{''.join(variants)}</tu>"


# -- text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_two_texts_are_read_in_step_and_only_line_feeds_end_lines(read, suffix):
    files = {f"a.{lang}{suffix}": PACK[suffix](lines(texts)) for lang, texts in
             (("de", DE), ("en", EN))}  # fmt: skip
    assert read(f"a.{{lang}}{suffix}", files) == PAIRS
    renamed = {f"de-en{name[1:]}": data for name, data in files.items()}
    assert read(f"{{pair}}.{{lang}}{suffix}", renamed) == PAIRS


def test_a_mark_of_byte_order_and_line_ends_of_other_systems_are_no_text(read):
    files = {"a.de": b"\xef\xbb\xbfeins\r\nzwei\r\n", "a.en": b"one\ntwo"}
    assert read("a.{lang}", files) == [("eins", "one", None), ("zwei", "two", None)]


def test_bytes_that_are_not_utf8_are_replaced(read):
    assert read("a.{lang}", {"a.de": b"M\xfcll\n", "a.en": b"a\n"}) == [("M\ufffdll", "a", None)]


@pytest.mark.parametrize("shorter", ["de", "en"])
def test_texts_of_unequal_length_are_an_error_that_names_the_line(read, shorter):
    files = {f"a.{lang}": lines(["x"] * (3 - (lang == shorter))) for lang in ("de", "en")}
    with pytest.raises(ValueError, match=rf"at line 3: .*a\.{shorter} has only 2 lines"):
        read("a.{lang}", files)


def test_sgm_is_read_by_its_segments(read):
    text = '<doc docid="x"><p>\n<seg id="1">{}</seg>\n<seg id="2">b &amp; c</seg>\n</p></doc>\n'
    files = {f"a.{lang}.sgm": text.format(lang).encode() for lang in ("de", "en")}
    assert read("a.{lang}.sgm", files) == [("de", "en", None), ("b & c", "b & c", None)]


def test_the_xml_of_wmt_is_read_by_its_segments(read):
    text = "<{0}><p><seg id='1'>{1}</seg></p></{0}>"
    data = f"<dataset><doc>{text.format('src', 'eins')}{text.format('ref', 'one')}</doc></dataset>"
    assert read("a.xml", {"a.xml": data.encode()}) == [("eins", "one", None)]
    with pytest.raises(ValueError, match="a.xml is not well-formed XML"):
        read("a.xml", {"a.xml": data[:-3].encode()})


# -- archives ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz"])
@pytest.mark.parametrize("member", ["in/a.{lang}", "*.{lang}"])
def test_members_of_archives_are_read_like_files(read, name, member):
    archive = packed(name, {"LICENSE": b"", "in/a.en": lines(EN), "in/a.de": lines(DE)})
    assert read(f"{name}?member={member}", {name: archive}) == PAIRS


def test_a_tar_whose_names_begin_with_a_dot_is_read(read):
    archive = packed("x.tgz", {"./a.en": lines(EN), "./a.de": lines(DE)})
    assert read("x.tgz?member=a.{lang}", {"x.tgz": archive}) == PAIRS


@pytest.mark.parametrize("name", ["x.zip", "x.tgz"])
def test_a_member_must_be_found_once(read, name):
    archive = packed(name, {"a.de": b"", "b.de": b"", "a.en": b""})
    with pytest.raises(ValueError, match=rf"in .*{name}, \*.de matches 2 files: a.de, b.de"):
        read(f"{name}?member=*.{{lang}}", {name: archive})
    with pytest.raises(ValueError, match=rf"in .*{name}, c.de matches no file; one is expected"):
        read(f"{name}?member=c.{{lang}}", {name: archive})


def test_damaged_files_are_named(read, tmp_path):
    text = lines([str(n * 7919) for n in range(20_000)])
    members = {"a.de": text, "a.en": text}
    archive, tar, gz = packed("x.zip", members), packed("x.tgz", members), gzip.compress(text)
    flipped = bytearray(archive)
    flipped[len(archive) // 3] ^= 255
    for source, files in [
        ("x.zip?member=a.{lang}", {"x.zip": bytes(flipped)}),
        ("x.zip?member=a.{lang}", {"x.zip": archive[: len(archive) // 2]}),
        ("x.tgz?member=a.{lang}", {"x.tgz": tar[: len(tar) // 2]}),
        ("x.tgz?member=a.{lang}", {"x.tgz": b"neither zip nor tar"}),
        ("a.{lang}.gz", {"a.de.gz": gz, "a.en.gz": gz[:-2000]}),
        ("a.{lang}.zst", {"a.de.zst": zstd.compress(text), "a.en.zst": b"not zstd"}),
        ("a.{lang}.xz", {"a.de.xz": lzma.compress(text), "a.en.xz": lzma.compress(text)[:-200]}),
    ]:
        with pytest.raises(Damaged, match="is damaged") as caught:
            read(source, files)
        assert str(caught.value.path) == str(tmp_path / list(files)[-1])


# -- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_columns_of_a_table_are_chosen(read, suffix):
    data = PACK[suffix]("talk1\tHow are you?\tWie\rgeht's?\n\tWell.\tGut.\n".encode())
    assert read(f"a.tsv{suffix}?de=3&en=2&document=1", {f"a.tsv{suffix}": data}) == [
        ("Wie\rgeht's?", "How are you?", "talk1"), ("Gut.", "Well.", None)
    ]  # fmt: skip


def test_a_header_that_names_the_languages_is_no_pair(read):
    table = b"talk_name\ten\tzh-cn\na\tHi.\t\xe5\x97\xa8\xe3\x80\x82\nb\ten\tzh\n"
    pairs = read("a.tsv?en=2&zh=3&document=1", {"a.tsv": table}, pair="zh-en")
    assert pairs == [("嗨。", "Hi.", "a"), ("zh", "en", "b")]
    assert len(read("b.tsv", {"b.tsv": "de\tja\n".encode()})) == 1


def test_documents_that_mtdata_names_are_known(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"eins\tone\tep-1\nzwei\ttwo\t\n")
    entry = find_sets(["Statmt-europarl-10-deu-eng"], tmp_path)["Statmt-europarl-10-deu-eng"]
    pairs = list(read_pairs([tmp_path / "a.tsv"], entry))
    assert pairs == [("eins", "one", "ep-1"), ("zwei", "two", None)]


@pytest.mark.parametrize("null", ["", "__NULL__", "_ _ NULL _ _"])
def test_a_missing_translation_is_none(read, null):
    assert read("a.tsv", {"a.tsv": f"eins\t{null}\n{null}\ttwo\n".encode()}) == [
        ("eins", None, None), (None, "two", None)
    ]  # fmt: skip


def test_a_row_with_too_few_columns_has_no_translation_and_shifts_nothing(read):
    assert read("a.tsv?de=1&en=2&document=3", {"a.tsv": b"eins\tone\nzwei\n\ndrei\tthree\tx\n"}) \
        == [("eins", "one", None), ("zwei", None, None), (None, None, None),
            ("drei", "three", "x")]  # fmt: skip
    archive = packed("a.zip", {"in.tsv": b"eins\tone\n"})
    assert read("a.zip?member=in.tsv&de=5&en=2", {"a.zip": archive}) == [(None, "one", None)]


def test_tables_in_archives_may_hold_commas_and_line_feeds(read):
    table = b'de,en,talk\n"Ja, klar\nheute",Yes,t1\n'
    archive = packed("a.zip", {"in.csv": table})
    pair = ("Ja, klar\nheute", "Yes")
    assert read("a.zip?member=in.csv", {"a.zip": archive}) == [(*pair, None)]
    assert read("a.zip?member=in.csv&document=3", {"a.zip": archive}) == [(*pair, "t1")]


# -- TMX -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_units_of_a_tmx_file_are_pairs_whatever_comes_first(read, encoding):
    data = tmx(unit("Größe", "size"), unit("one", "eins", first="EN-us", second="DE"),
               encoding=encoding)  # fmt: skip
    assert read("a.tmx", {"a.tmx": data}) == [("Größe", "size", None), ("eins", "one", None)]


def test_text_after_and_inside_inline_elements_is_kept_and_codes_are_not(read):
    text = "Ein <bpt i='1'>{\\b </bpt><hi>fet<hi>t</hi>es</hi><ept i='1'>}</ept> Wort. "
    data = tmx(unit(text, "A &lt;"))
    assert read("a.tmx", {"a.tmx": data}) == [("Ein fettes Wort.", "A <", None)]


def test_documents_of_a_tmx_file_are_named_by_a_prop(read):
    prop = "<prop type='doc'>WO1</prop><prop type='date'>2010</prop>"
    data = tmx(unit("a", "b", before=prop), unit("c", "d"))
    assert read("a.tmx?document=doc", {"a.tmx": data}) == [("a", "b", "WO1"), ("c", "d", None)]
    assert read("a.tmx", {"a.tmx": data})[0] == ("a", "b", None)


def test_a_unit_without_one_of_the_languages_has_no_translation(read):
    data = tmx(unit("a", None), unit("a", "b", second="fr"), unit("a", "", second="en"))
    assert read("a.tmx", {"a.tmx": data}) == [("a", None, None)] * 3


def test_of_two_variants_of_a_language_the_first_counts(read):
    data = tmx(unit("Farbe", "colour").replace("</tu>", "")
               + '<tuv xml:lang="en-US"><seg>color</seg></tuv></tu>')  # fmt: skip
    assert read("a.tmx", {"a.tmx": data}) == [("Farbe", "colour", None)]


def test_a_tmx_file_may_be_of_an_older_version_and_packed(read):
    data = tmx(unit("a", "b")).replace(b'<tmx version="1.4"', b'<tmx xmlns="http://x" version="1"')
    data = data.replace(b"xml:lang", b"lang")  # as in TMX 1.1
    assert read("a.tmx.gz", {"a.tmx.gz": gzip.compress(data)}) == [("a", "b", None)]
    archive = packed("a.zip", {"d/a.tmx": data})
    assert read("a.zip?member=*.tmx", {"a.zip": archive}) == [("a", "b", None)]


def test_units_that_were_read_are_not_kept(tmp_path):
    (tmp_path / "a.tmx").write_bytes(tmx(*[unit("ein Wort", "a word")] * 1000))
    row = Row("a", "de-en", "d", "train", "file:a.tmx", "", "", catalogue=tmp_path / "c.tsv")
    (item,) = resolve([row], tmp_path)
    pairs = read_pairs(item.files, item.entry)
    next(pairs)
    tracemalloc.start()
    try:
        assert sum(1 for _ in pairs) == 999
        assert tracemalloc.get_traced_memory()[1] < 500_000  # bytes; all units are a million
    finally:
        tracemalloc.stop()


def test_a_tmx_file_that_ends_too_early_is_an_error(read):
    with pytest.raises(ValueError, match="a.tmx is not well-formed XML: unclosed"):
        read("a.tmx", {"a.tmx": tmx(unit("a", "b"))[:-10]})


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.tsv", "tsv"), ("a.tsv.gz", "tsv"), ("A.TMX", "tmx"), ("a.csv.zst", "csvwithheader"),
     ("a.xml", "wmt21xml"), ("a.txt", None), ("a.gz", None), ("a", None)],
)  # fmt: skip
def test_the_kind_of_a_file_is_known_by_its_name(name, kind):
    assert kind_of(name) == kind
