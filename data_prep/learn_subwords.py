"""Learn subwords from lines of text: SentencePiece models and subword-nmt codes."""

import io
import re
from collections import Counter

import sentencepiece

from data_prep.files import one_line
from data_prep.subwords import CODES_HEADER, RESERVED, SEPARATOR, WORD_END, PairCodes

BYTE_PIECES = 256  # byte fallback: one piece per byte value
CONTROL_PIECES = 3  # <unk> <s> </s>, which fairseq's dictionary adds by itself

# SentencePiece silently leaves out lines that hold this character, which it uses inside
SENTENCEPIECE_RESERVED = "\u2585"

# always among the characters of subword-nmt codes, so that no address or formula is unknown
ASCII = "".join(map(chr, range(ord("!"), ord("~") + 1)))


def learn_sentencepieces(texts, size, character_coverage=0.9995, model_type="unigram"):
    """Bytes of a SentencePiece model with ``size`` pieces.

    Args:
        texts: list of str, one line each, at least one of them not empty.
        size: number of pieces, 256 byte pieces and 3 control pieces among them.
        character_coverage: share of the characters, by frequency, that get their own
            piece; the rest is spelt in bytes.
        model_type: "unigram" or "bpe".

    Raises:
        ValueError: the text is too small for the size, or the size for the text.
    """
    if size <= BYTE_PIECES + CONTROL_PIECES:
        raise ValueError(
            f"--size {size} leaves no room for pieces: {BYTE_PIECES} bytes and "
            f"{CONTROL_PIECES} control pieces are always among them; a few thousand is usual"
        )
    if not 0.9 <= character_coverage <= 1:
        raise ValueError(f"--character-coverage is a share from 0.9 to 1, not {character_coverage}")
    texts = list(filter(None, map(_without_reserved, texts)))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # an iterator and a writer, so that no path gets into the model's bytes
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type=model_type,
            character_coverage=character_coverage,
            byte_fallback=True,
            # the text stays as it is ("…" would become "..."): references are never altered,
            # and a student that cannot write their characters cannot match them
            normalization_rule_name="identity",
            # longer lines are left out silently, so none is longer (unit: bytes; at least 10)
            max_sentence_length=max([9, *(len(text.encode()) for text in texts)]) + 1,
            # sums of floats depend on how lines are shared out among threads
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_size_fault(size, str(error))) from None
    return model.getvalue()


def _without_reserved(text):
    if SENTENCEPIECE_RESERVED not in text:
        return text
    return one_line(text.replace(SENTENCEPIECE_RESERVED, " "))


def _size_fault(size, message):
    """SentencePiece's complaint about the vocabulary size in our users' words."""
    if found := re.search(r"<= (\d+)\.", message):
        return (
            f"the text is too small for a vocabulary of {size:,}: the largest possible "
            f"--size is {int(found[1]):,}"
        )
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return (
            f"--size {size:,} is too small for the characters of this text: they need at least "
            f"{int(found[1]):,}; raise --size or lower --character-coverage"
        )
    return f"SentencePiece could not learn a vocabulary of {size:,}: {message}"


def learn_codes(sides, size, characters, threshold):
    """Joint codes of subword-nmt, and the pieces that lines of each language are cut into.

    As in subword-nmt's README: codes are learnt from both languages together; a piece that is
    rarer than ``threshold`` in one of them is split again there, so that a word is not cut as only
    the other language's text could teach.

    Args:
        sides: list of lists of lines, one for each language.
        size: largest number of pieces altogether, characters and what merging makes.
        characters: set of all that have to be known.
        threshold: fewest times that a piece occurs in a language.

    Returns:
        lines of the codes, and for each language {piece: count}. All characters are in
        each, inside and at the end of a word, so whatever is made of them is known.

    Raises:
        ValueError: the size is too small for the characters.
    """
    from subword_nmt.learn_bpe import learn_bpe

    characters = {*characters, *ASCII} - {" "}
    merges = size - 2 * len(characters)
    if merges <= 0:
        raise ValueError(
            f"--size {size:,} is too small for the characters of this text: each of the "
            f"{len(characters):,} is a piece inside a word and another at its end, which makes "
            f"{2 * len(characters):,}; raise --size, or take --kind unigram or bpe, which spell "
            "rare characters in bytes"
        )
    words = [Counter(word for line in lines for word in line.split(" ")) for lines in sides]
    together = sum(words, Counter())
    codes = [CODES_HEADER]
    if any(len(word) > 1 for word in together):  # else there is no pair, and it stumbles
        out = io.StringIO()
        counted = [f"{word} {count}" for word, count in together.items() if word]
        learn_bpe(counted, out, merges, is_dict=True)
        codes = [line for line in out.getvalue().rstrip("\n").split("\n") if not _ambiguous(line)]
    subwords = PairCodes.of_lines(codes, "codes")
    single = {form for character in characters for form in (character, character + SEPARATOR)}
    vocabularies = []
    for counted in words:
        pieces = Counter()
        for word, count in counted.items():
            for piece in subwords.encode(word):
                pieces[piece] += count
        kept = {
            piece: count
            for piece, count in pieces.items()
            if count >= threshold and piece not in RESERVED
        }
        vocabularies.append(kept | {piece: pieces[piece] for piece in single})
    return codes, vocabularies


def _ambiguous(code):
    """Whether a merge makes a word's end that looks like a piece inside a word."""
    return "".join(code.split(" ")).endswith(SEPARATOR + WORD_END)
