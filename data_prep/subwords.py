"""Text to subword pieces and back, through a SentencePiece model."""

from pathlib import Path

import sentencepiece

from data_prep.files import one_line

WORD_START = "\u2581"  # SentencePiece writes the space before a word as this character


class Subwords:
    """A SentencePiece model.

    For every line, ``decode(encode(line)) == printable(line)``, provided that the
    model has byte fallback (those of ``data_prep.vocabulary`` have).
    """

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

    def encode(self, line):
        """Pieces of a line: list of str, none of which holds white space; empty for ''."""
        return self._processor.encode(printable(line), out_type=str)

    def encode_batch(self, lines, threads=1):
        """``encode`` of each of many lines: list of lists of str."""
        return self._processor.encode(
            [printable(line) for line in lines], out_type=str, num_threads=threads
        )

    def sample(self, line, alpha, seed):
        """Pieces of a line cut at random, the same for the same ``seed``: list of str.

        Sets the seed of SentencePiece's generator, so one thread at a time.

        Args:
            line: text.
            alpha: unigram models: the power by which the probabilities of all ways to cut the
                line are raised before one is drawn; BPE models: the share of merges left out.
            seed: 0 to 2**32 - 2.
        """
        sentencepiece.set_random_generator_seed(seed)
        return self._processor.encode(
            printable(line), out_type=str, enable_sampling=True, alpha=alpha, nbest_size=-1
        )

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

    def cut(self, pieces, longest):
        """The first ``longest`` of a line's pieces."""
        return pieces[:longest]

    def decode(self, pieces):
        """The text of a list of pieces: one line with single spaces and no line separator.

        Bytes that make no character become U+FFFD, as a model may emit anything.
        """
        return one_line(self._processor.decode_pieces(list(pieces)))

    def decode_batch(self, sentences):
        """``decode`` of each of many lists of pieces: list of str."""
        texts = self._processor.decode_pieces([list(pieces) for pieces in sentences])
        return [one_line(text) for text in texts]


def printable(line):
    """``line`` as the subword model sees it: one line, single spaces, NFC.

    SentencePiece's own word mark cannot be told from a space, so it becomes one.
    """
    return one_line(line.replace(WORD_START, " "))
