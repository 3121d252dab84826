"""Text to subword pieces and back: SentencePiece models and subword-nmt codes, one interface."""

import abc
import io
from pathlib import Path

import sentencepiece
from subword_nmt.apply_bpe import BPE, check_vocab_and_split

from data_prep.files import one_line, read_lines

WORD_START = "\u2581"  # SentencePiece writes the space before a word as this character
SEPARATOR = "@@"  # subword-nmt ends every piece but a word's last with it
WORD_END = "</w>"  # how it marks the end of a word in its codes
CODES_HEADER = "#version: 0.2"
CACHED_WORDS = 1_000_000  # subword-nmt remembers every word it has split

# names that fairseq and CTranslate2 give symbols of their own: never pieces of text
RESERVED = frozenset(["<s>", "<pad>", "</s>", "<unk>", "<blank>"])


class Subwords(abc.ABC):
    """What turns lines of one language into pieces and back.

    Attributes:
        kind: "sentencepiece" or "subword-nmt".
        threaded: whether ``encode_batch`` makes use of threads.
        plain: the subword model itself, without tokenising around it.
    """

    kind = None
    threaded = False

    @property
    def plain(self):
        return self

    @abc.abstractmethod
    def encode(self, line):
        """Pieces of a line: list of str, none of which holds white space; empty for ''."""

    def encode_batch(self, lines, threads=1):
        """``encode`` of each of many lines: list of lists of str."""
        return [self.encode(line) for line in lines]

    @abc.abstractmethod
    def decode(self, pieces):
        """The text of a list of pieces: one line with single spaces and no line separator."""

    def decode_batch(self, sentences):
        """``decode`` of each of many lists of pieces: list of str."""
        return [self.decode(pieces) for pieces in sentences]

    def cut(self, pieces, longest):
        """The first ``longest`` of a line's pieces."""
        return pieces[:longest]


class SentencePieces(Subwords):
    """A SentencePiece model, unigram or BPE.

    For every line, ``decode(encode(line)) == printable(line)``, provided that the model has byte
    fallback and normalises nothing (those of ``data_prep.vocabulary`` do so).
    """

    kind = "sentencepiece"
    threaded = True

    def __init__(self, processor):
        self._processor = processor

    @classmethod
    def load(cls, path):
        """Read a model file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a SentencePiece model.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"subword model {path} is missing")
        try:
            processor = sentencepiece.SentencePieceProcessor()
            processor.load_from_serialized_proto(path.read_bytes())  # reports an empty file too
            return cls(processor)
        except RuntimeError:
            raise ValueError(
                f"{path} is not a SentencePiece model or is damaged; copy it again from "
                "the vocabulary folder it was made in"
            ) from None

    @property
    def pieces(self):
        """The model's pieces in its order without control symbols and ``<unk>``, a list."""
        model = self._processor
        return [
            model.id_to_piece(number)
            for number in range(model.get_piece_size())
            if not model.is_control(number) and not model.is_unknown(number)
        ]

    def scores(self):
        """{piece: score} of all pieces but bytes and control symbols.

        Unigram models: log-probabilities. BPE models: minus the rank of the merge, whole numbers.
        """
        model = self._processor
        special = (model.is_control, model.is_unknown, model.is_byte, model.is_unused)
        return {
            model.id_to_piece(number): model.get_score(number)
            for number in range(model.get_piece_size())
            if not any(is_special(number) for is_special in special)
        }

    def encode(self, line):
        return self._processor.encode(printable(line), out_type=str)

    def encode_batch(self, lines, threads=1):
        return self._processor.encode(
            [printable(line) for line in lines], out_type=str, num_threads=threads
        )

    def decode(self, pieces):
        """The text of a list of pieces: one line with single spaces and no line separator.

        Bytes that make no character become U+FFFD, as a model may emit anything.
        """
        return one_line(self._processor.decode_pieces(list(pieces)))

    def decode_batch(self, sentences):
        texts = self._processor.decode_pieces([list(pieces) for pieces in sentences])
        return [one_line(text) for text in texts]


class PairCodes(Subwords):
    """Codes of subword-nmt: words of a line to pieces and back.

    ``decode(encode(line)) == one_line(line)``, unless a word ends with ``@@`` as one piece.
    A piece that is not known is split further, as ``apply_bpe --vocabulary`` does; in the end
    there are characters, known or not.
    """

    kind = "subword-nmt"

    def __init__(self, bpe):
        self._bpe = bpe

    @classmethod
    def load(cls, path, known=None):
        """Read a file of codes.

        Args:
            path: file whose first line is ``#version: 0.2``.
            known: the pieces that may come; None: leave pieces as the codes make them.

        Raises:
            ValueError: a line is not a pair of symbols; names it.
        """
        return cls.of_lines(list(read_lines(path)), path, known)

    @classmethod
    def of_lines(cls, lines, path, known=None):
        """The same from the lines of the file; ``path`` is what errors name."""
        if not lines or lines[0].strip() != CODES_HEADER:
            raise ValueError(f"{path}, line 1: subword-nmt codes begin with {CODES_HEADER!r}")
        # subword-nmt ends the process when it finds such a line
        for number, line in enumerate(lines[1:], start=2):
            if len(line.strip("\r ").split(" ")) != 2:
                raise ValueError(
                    f"{path}, line {number:,}: expected two symbols and one space, found "
                    f"{line[:80]!r}; copy the file again"
                )
        # subword-nmt takes no codes at all for one empty code
        merges = -1 if len(lines) > 1 else 0
        known = None if known is None else set(known) - RESERVED
        return cls(BPE(io.StringIO("\n".join(lines)), merges, separator=SEPARATOR, vocab=known))

    @property
    def pieces(self):
        """The pieces that merging makes, as a set."""
        return {
            merged.removesuffix(WORD_END) if merged.endswith(WORD_END) else merged + SEPARATOR
            for merged in self._bpe.bpe_codes_reverse
        }

    @property
    def ranks(self):
        """{(left, right): rank} of the merges; a word's last symbol ends with ``</w>``."""
        return self._bpe.bpe_codes

    def encode(self, line):
        if len(self._bpe.cache) > CACHED_WORDS:
            self._bpe.cache.clear()
        return self._bpe.segment_tokens(one_line(line).split(" "))

    def finish(self, symbols):
        """Pieces of a word whose characters were merged so far: unknown ones split, ends marked.

        Args:
            symbols: list of str, the last one ends with ``</w>``.
        """
        symbols = (*symbols[:-1], symbols[-1].removesuffix(WORD_END))
        # like subword-nmt, which leaves a word of one character as it is
        if self._bpe.vocab and len("".join(symbols)) > 1:
            symbols = check_vocab_and_split(
                symbols, self._bpe.bpe_codes_reverse, self._bpe.vocab, SEPARATOR
            )
        return [*(symbol + SEPARATOR for symbol in symbols[:-1]), symbols[-1]]

    def decode(self, pieces):
        joined = (
            piece.removesuffix(SEPARATOR) if piece.endswith(SEPARATOR) else piece + " "
            for piece in pieces
        )
        return one_line("".join(joined))


class Tokenised(Subwords):
    """A subword model whose text is tokenised first, and its output put back into plain text.

    Args:
        subwords: a ``SentencePieces`` or ``PairCodes``.
        tokeniser: ``moses.Moses``.
    """

    def __init__(self, subwords, tokeniser):
        self._subwords, self._tokeniser = subwords, tokeniser
        self.kind = subwords.kind

    @property
    def plain(self):
        return self._subwords

    def encode(self, line):
        return self._subwords.encode(self._tokeniser.tokenise(printable(line)))

    def encode_batch(self, lines, threads=1):
        tokenised = [self._tokeniser.tokenise(printable(line)) for line in lines]
        return self._subwords.encode_batch(tokenised, threads)

    def decode(self, pieces):
        return one_line(self._tokeniser.detokenise(self._subwords.decode(pieces)))


def printable(line):
    """``line`` as the subword model sees it: one line, single spaces, NFC.

    SentencePiece's own word mark cannot be told from a space, so it becomes one.
    """
    return one_line(line.replace(WORD_START, " "))
