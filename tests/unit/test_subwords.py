"""data_prep/subwords.py: whatever the line, pieces that fairseq can read, and the line again."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subword_nmt.apply_bpe import BPE, read_vocabulary

from data_prep import moses
from data_prep import subwords as module
from data_prep.files import one_line
from data_prep.learn_subwords import ASCII, learn_codes, learn_sentencepieces
from data_prep.subwords import PairCodes, SentencePieces, Tokenised, printable
from data_prep.vocabulary import MODEL_FILE
from tests.fixtures.bitext import TRAIN, write_side

TEXT = [text for pair in TRAIN for text in pair]
MODEL = learn_sentencepieces(TEXT, 305)

AWKWARD = [
    "",
    " ",
    "\t\r\v\f",
    "two\rparts",
    "a\u2028b\u2029c\x85d",
    "no\u00a0break\u3000wide\u2009thin",
    "nul\x00 and bell\x07",
    "\ufeffmark",
    "<unk> <s> </s> <pad> <0x0A> <0x41>",
    "▁ word ▁start",
    "reserved ▅ block",
    "Straße, ½ … ﬁ ²",
    "u\u0308 decomposed",
    "你好，世界。",
    "👩‍👩‍👧 \U0001f1e9\U0001f1ea",
    "\U0010ffff\ufffe",
    "x" * 3000,
    "word " * 10_000,
]


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / MODEL_FILE
    path.write_bytes(MODEL)
    return SentencePieces.load(path)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def of_both_types(request, subwords, tmp_path_factory):
    if request.param == "unigram":
        return subwords
    path = tmp_path_factory.mktemp("bpe") / MODEL_FILE
    path.write_bytes(learn_sentencepieces(TEXT, 305, model_type="bpe"))
    return SentencePieces.load(path)


def as_fairseq_reads(pieces):
    """Lines of tokens that fairseq sees in a file with these pieces on one line."""
    text = io.TextIOWrapper(io.BytesIO((" ".join(pieces) + "\n").encode()), encoding="utf-8")
    return [line.split() for line in text]


@pytest.mark.parametrize("line", AWKWARD, ids=lambda line: ascii(line[:20]))
def test_awkward_lines_survive(of_both_types, line):
    pieces = of_both_types.encode(line)
    assert as_fairseq_reads(pieces) == [pieces]
    assert of_both_types.decode(pieces) == printable(line)
    assert "<unk>" not in pieces


@given(line=st.text())
def test_pieces_are_read_back_by_fairseq_as_they_were_written(of_both_types, line):
    pieces = of_both_types.encode(line)
    assert as_fairseq_reads(pieces) == [pieces]


@given(line=st.text())
def test_decoding_restores_the_line_and_nothing_is_unknown(of_both_types, line):
    pieces = of_both_types.encode(line)
    assert of_both_types.decode(pieces) == printable(line)
    assert set(pieces) <= set(of_both_types.pieces)


def test_the_scores_of_bpe_are_ranks_and_those_of_unigram_are_not(of_both_types, subwords):
    ranks = all(score == int(score) for score in of_both_types.scores().values())
    assert ranks == (of_both_types is not subwords)


@given(lines=st.lists(st.text()))
def test_a_batch_is_encoded_line_by_line(subwords, lines):
    assert subwords.encode_batch(lines, threads=2) == [subwords.encode(line) for line in lines]


@given(
    pieces=st.lists(
        st.sampled_from(["▁Das", "a", "<0x0A>", "<0x0D>", "<0xE2>", "<0x80>", "<0xA8>", "<unk>",
                         "</s>", "<s>", "no such piece", "▁", "\r", "\n"])
    )
)  # fmt: skip
def test_whatever_a_model_emits_decodes_to_one_line(subwords, pieces):
    assert len(subwords.decode(pieces).splitlines()) <= 1


def test_text_is_not_rewritten(subwords):
    assert subwords.decode(subwords.encode("½ … ﬁ ² ，")) == "½ … ﬁ ² ，"


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"subwords\.model is missing"):
        SentencePieces.load(tmp_path / MODEL_FILE)


@pytest.mark.parametrize(
    "data", [b"", b"not a model", MODEL[:-100], MODEL[: len(MODEL) // 2], MODEL[100:]],
    ids=["empty", "text", "end lost", "half lost", "start lost"],
)  # fmt: skip
def test_a_damaged_model_is_named(tmp_path, data):
    (tmp_path / MODEL_FILE).write_bytes(data)
    with pytest.raises(ValueError, match=r"subwords\.model is not a SentencePiece model"):
        SentencePieces.load(tmp_path / MODEL_FILE)


# -- subword-nmt ---------------------------------------------------------------------------

SIDES = [list(side) for side in zip(*TRAIN, strict=True)]
CODES, KNOWN = learn_codes(SIDES, 280, set("Üäéß你好"), 2)
CHARACTERS = "".join(sorted({*ASCII, *"Üäéß你好"}.union(*TEXT) - {" "}))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "bpe.codes"
    write_side(path, CODES)
    return path


@pytest.fixture(scope="module")
def codes(path):
    return PairCodes.load(path)


@pytest.fixture(scope="module")
def filtered(path):
    """The same with the pieces of German text alone."""
    return PairCodes.load(path, KNOWN[0])


def test_pieces_are_those_of_subword_nmt(codes, filtered):
    lines = [*TEXT, "Die Überfahrt war teuer, sagte sie.", "The number is open."]
    vocabulary = [f"{piece} {count}" for piece, count in KNOWN[0].items()]
    for ours, known in ((codes, None), (filtered, read_vocabulary(vocabulary, None))):
        theirs = BPE(io.StringIO("\n".join(CODES)), vocab=known)
        assert ours.encode_batch(lines) == [theirs.segment(line).split(" ") for line in lines]
    assert codes.encode("number") == ["number"] != filtered.encode("number")


@pytest.mark.parametrize("line", ["", " ", "Ja… nein.", "a\u2028b\u3000c\td", "Grüße @ @@ a@@b @@c",
                                  "你好 世界", "\U0001f600", "x" * 3000])  # fmt: skip
def test_awkward_lines_survive_subword_nmt(codes, line):
    pieces = codes.encode(line)
    assert codes.decode(pieces) == one_line(line)
    assert as_fairseq_reads(pieces) == [pieces]


@given(line=st.text())
def test_subword_nmt_restores_the_line(codes, line):
    assert codes.decode(codes.encode(line)) == one_line(line)


@given(line=st.text(CHARACTERS + " "))
def test_no_word_of_known_characters_is_unknown_to_subword_nmt(filtered, line):
    pieces = filtered.encode(line)
    assert KNOWN[0].keys() >= set(pieces)
    assert filtered.decode(pieces) == one_line(line)


@given(data=st.data())
def test_characters_that_subword_nmt_does_not_know_are_pieces_of_their_own(filtered, data):
    strange = data.draw(st.characters(min_codepoint=0x5000, max_codepoint=0x9000))
    word = data.draw(st.text("Haus", max_size=3)) + strange + data.draw(st.text("Haus", max_size=3))
    unknown = set(filtered.encode(one_line(word))) - KNOWN[0].keys()
    assert {piece.removesuffix("@@") for piece in unknown} <= {one_line(strange)}


def test_a_piece_that_the_model_lacks_is_split_further(path, codes):
    whole = codes.encode("Nummer")
    assert len(whole) == 1
    known = {f"{letter}@@" for letter in "Numer"} | {"r"}
    split = PairCodes.load(path, known=known).encode("Nummer")
    assert split == ["N@@", "u@@", "m@@", "m@@", "e@@", "r"]
    assert PairCodes.load(path, known=known | set(whole)).encode("Nummer") == whole


def test_the_pieces_that_codes_make_are_listed(codes):
    made = {piece for line in codes.encode_batch(TEXT) for piece in line}
    letters = {piece for piece in made if len(piece.removesuffix("@@")) == 1}
    assert made - letters <= codes.pieces


def test_words_are_remembered_up_to_a_number(path, monkeypatch):
    monkeypatch.setattr(module, "CACHED_WORDS", 10)
    codes = PairCodes.load(path)
    lines = [f"Haus{number}" for number in range(100)]
    assert [codes.decode(pieces) for pieces in codes.encode_batch(lines)] == lines
    assert len(codes._bpe.cache) <= 11


@pytest.mark.parametrize(
    "lines, message",
    [
        (["#version: 0.1", *CODES[1:]], "line 1: subword-nmt codes begin with '#version: 0.2'"),
        (CODES[1:], "line 1: subword-nmt codes begin"),
        ([*CODES[:3], "a b 17"], "line 4: expected two symbols and one space, found 'a b 17'"),
        ([*CODES[:3], ""], "line 4: expected two symbols"),
        ([], "line 1: subword-nmt codes begin"),
    ],
)
def test_other_codes_are_refused_and_do_not_end_the_process(lines, message, tmp_path):
    write_side(tmp_path / "source.bpe", lines)
    with pytest.raises(ValueError, match=r"source\.bpe") as raised:
        PairCodes.load(tmp_path / "source.bpe")
    assert message in str(raised.value)


def test_words_named_like_symbols_of_fairseq_are_cut():
    lines = ["</s> <unk> <pad> <s> <blank>"] * 100
    codes, (known, _) = learn_codes([lines, lines], 400, set(), 2)
    subwords = PairCodes.of_lines(codes, "codes", known)
    assert "</s>" in PairCodes.of_lines(codes, "codes").encode(lines[0])
    assert {len(subwords.encode(word)) > 1 for word in lines[0].split()} == {True}
    assert not known.keys() & module.RESERVED
    # a dictionary may name them: they still are no text
    assert subwords.encode("</s>") == PairCodes.of_lines(
        codes, "codes", [*known, "</s>"]
    ).encode("</s>")


def test_a_word_that_ends_like_an_inner_piece_is_not_one_piece():
    lines = ["foo@@ bar@@ @@ @@@"] * 100
    codes, (known, _) = learn_codes([lines, lines], 400, set(), 2)
    subwords = PairCodes.of_lines(codes, "codes", known)
    assert subwords.decode(subwords.encode(lines[0])) == lines[0]
    assert {"o o", "b a"} <= set(codes)  # other merges stay


@pytest.mark.parametrize("threshold", [1, 3, 20, 1000])
def test_a_piece_rarer_than_the_threshold_in_a_language_is_split_there(threshold):
    codes, vocabularies = learn_codes(SIDES, 400, set(), threshold)
    whole = PairCodes.of_lines(codes, "codes")
    for lines, known in zip(SIDES, vocabularies, strict=True):
        counted = [piece for line in lines for piece in whole.encode(line)]
        for piece in set(counted):
            single = len(piece.removesuffix("@@")) == 1
            assert (piece in known) == (single or counted.count(piece) >= threshold)
            assert piece not in known or known[piece] == counted.count(piece)


def test_text_of_single_letters_has_no_merges():
    codes, (known, _) = learn_codes([["a b c", ""], ["d"]], 300, set("abcd"), 2)
    assert codes == ["#version: 0.2"]
    assert PairCodes.of_lines(codes, "codes", known).encode("a bad") == ["a", "b@@", "a@@", "d"]


def test_a_size_too_small_for_the_characters_names_what_they_need():
    with pytest.raises(ValueError, match="each of the 94 is a piece .* which makes 188; raise"):
        learn_codes(SIDES, 188, set(), 2)


# -- tokenised -----------------------------------------------------------------------------

# what Moses' own scripts make of these
TOKENS = {
    "She's here, isn't she? (No.)": "She &apos;s here , isn &apos;t she ? ( No . )",
    "a well-known \"fact\" [1] & more": (
        "a well @-@ known &quot; fact &quot; &#91; 1 &#93; &amp; more"
    ),
    "Mr. Smith paid 3.5, or 1,000 €.": "Mr. Smith paid 3.5 , or 1,000 € .",
}


def tokenised(subwords, lang="en", truecaser=None, **settings):
    return Tokenised(subwords, moses.Moses(lang, moses.Settings(**settings), truecaser))


@pytest.mark.parametrize("line", TOKENS)
def test_text_is_tokenised_before_it_is_cut_and_put_back_afterwards(subwords, line):
    moses_too = tokenised(subwords)
    assert moses_too.encode(line) == subwords.encode(TOKENS[line])
    assert moses_too.decode(subwords.encode(TOKENS[line])) == line
    assert moses_too.plain is subwords and moses_too.kind == subwords.kind


def test_dashes_and_special_characters_may_stay(subwords):
    line = "a well-known \"fact\" [1] & more"
    gentle = tokenised(subwords, dash_splits=False, escape=False)
    assert gentle.encode(line) == subwords.encode('a well-known " fact " [ 1 ] & more')
    assert gentle.decode(gentle.encode(line)) == line
    assert gentle.decode(subwords.encode("x &amp; y")) == "x &amp; y"
    assert tokenised(subwords).decode(subwords.encode("x &amp; y")) == "x & y"


def test_what_detokenising_joins_is_in_nfc_again(codes):
    assert tokenised(codes).decode(["\u1100", "\u1161"]) == "\uac00"


def test_languages_have_rules_of_their_own(subwords):
    line = "Das kostet ca. 5 Euro, z.B. heute."
    pieces = subwords.encode("Das kostet ca. 5 Euro , z.B. heute .")
    assert tokenised(subwords, "de").encode(line) == pieces != tokenised(subwords).encode(line)


def test_chinese_is_not_cut_into_words(subwords):
    pieces = tokenised(subwords, "zh").encode("你好，世界")
    assert pieces == subwords.encode("你好 ， 世界")


def test_words_get_their_usual_case_and_sentences_a_capital(subwords, tmp_path):
    lines = ["We saw the house in Paris .", "Now the Paris of today ."] * 3
    moses.learn_truecaser(lines, tmp_path / "truecaser.en")
    cased = tokenised(subwords, truecaser=tmp_path / "truecaser.en")
    assert cased.encode("The house. PARIS!") == subwords.encode("the house . Paris !")
    assert cased.encode("See Paris. And The End") == subwords.encode("See Paris . And the End")
    assert cased.decode(subwords.encode("the house . it is Paris .")) == "The house. It is Paris."
    assert [path.name for path in tmp_path.iterdir()] == ["truecaser.en"]


def test_a_word_inside_a_sentence_keeps_a_case_it_was_seen_in(subwords, tmp_path):
    lines = ["We saw the house .", "They saw the house .", "Look , The Hague ."]
    moses.learn_truecaser(lines, tmp_path / "truecaser.en")
    cased = tokenised(subwords, truecaser=tmp_path / "truecaser.en")
    assert cased.encode("In The Hague") == subwords.encode("In The Hague")


@given(line=st.text())
def test_whatever_the_line_it_is_tokenised_cut_and_put_back_into_one_line(filtered, line):
    both = tokenised(filtered, "de")
    pieces = both.encode(line)
    assert as_fairseq_reads(pieces) == [pieces]
    assert both.decode(pieces) == one_line(both.decode(pieces))
    assert both.encode_batch([line, line]) == [pieces, pieces]


@pytest.mark.parametrize("text", ["word", "word (x)", "a (1/2) b"])
def test_a_file_that_is_no_truecasing_model_is_named(tmp_path, text):
    write_side(tmp_path / "truecaser.en", [text])
    with pytest.raises(ValueError, match=r"truecaser\.en is not a truecasing model"):
        moses.Moses("en", moses.Settings(), tmp_path / "truecaser.en")


@pytest.mark.parametrize(
    "record, message",
    [("[]", "does not describe a tokeniser"), ("{}", "does not describe a tokeniser"),
     ('{"tokeniser": "moses", "speed": 3}', "does not describe a tokeniser"),
     ('{"tokeniser": "jieba"}', "tokeniser 'jieba' is unknown; 'moses' is what")],
)  # fmt: skip
def test_settings_of_something_else_are_refused(tmp_path, record, message):
    (tmp_path / "tokeniser.json").write_text(record)
    with pytest.raises(ValueError, match=message):
        moses.Settings.read(tmp_path / "tokeniser.json")


def test_settings_are_read_as_they_were_written(tmp_path):
    for settings in (moses.Settings(), moses.Settings(dash_splits=False, escape=False)):
        settings.write(tmp_path / "tokeniser.json")
        assert moses.Settings.read(tmp_path / "tokeniser.json") == settings
