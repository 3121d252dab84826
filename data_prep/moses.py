"""Moses' tokeniser and truecaser, through sacremoses: there and back.

For models that were trained on such text. It is not exactly undone: an apostrophe without a
direction, a sign before a number or an ellipsis may come back with a space beside it, and the first
word of a sentence comes back with a capital. Chinese has no spaces to go by: only punctuation is
split off, and comes back with spaces around it.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.manifest import read_json, write_json

TOKENISER = "moses"


@dataclass(frozen=True)
class Settings:
    """How text is tokenised; the names are those of fairseq's ``--tokenizer moses``.

    Attributes:
        dash_splits: whether ``well-known`` becomes ``well @-@ known``.
        escape: whether ``&``, ``|``, brackets and quotes are written as ``&amp;`` and so on.
    """

    dash_splits: bool = True
    escape: bool = True

    def write(self, path):
        """Write the settings as JSON."""
        write_json(path, {"tokeniser": TOKENISER, **asdict(self)})

    @classmethod
    def read(cls, path):
        """The settings in a file.

        Raises:
            ValueError: the file holds something else.
        """
        record = read_json(path)
        try:
            tokeniser, settings = record.pop("tokeniser"), cls(**record)
        except (AttributeError, KeyError, TypeError):
            raise ValueError(
                f"{path} does not describe a tokeniser; copy the folder again"
            ) from None
        if tokeniser != TOKENISER:
            raise ValueError(
                f"{path}: tokeniser {tokeniser!r} is unknown; {TOKENISER!r} is what this version "
                "knows"
            )
        return settings


class Moses:
    """Tokenises lines of a language, and truecases them if there is a model for that.

    Args:
        lang: language code; one that Moses has no rules for is treated like English.
        settings: ``Settings``.
        truecaser: file in the format of Moses' ``train-truecaser.perl``, or None.

    Raises:
        ValueError: the file is no truecasing model.
    """

    def __init__(self, lang, settings, truecaser=None):
        from sacremoses import MosesDetokenizer, MosesDetruecaser, MosesTokenizer, MosesTruecaser

        self._settings = settings
        self._tokeniser, self._detokeniser = MosesTokenizer(lang), MosesDetokenizer(lang)
        self._truecaser, self._detruecaser = None, MosesDetruecaser()
        if truecaser is not None:
            try:
                self._truecaser = MosesTruecaser(str(truecaser))
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{truecaser} is not a truecasing model: {error}") from None

    def tokenise(self, line):
        """The tokens of a line with a space between them, truecased."""
        text = self._tokeniser.tokenize(
            line, return_str=True, escape=self._settings.escape,
            aggressive_dash_splits=self._settings.dash_splits,
        )  # fmt: skip
        return text if self._truecaser is None else self.truecase(text)

    def truecase(self, text):
        """A line of tokens, words in their usual case."""
        # use_known: a word inside a sentence keeps a case it was seen in, as in Moses' script
        return self._truecaser.truecase(text, return_str=True, use_known=True)

    def detokenise(self, text):
        """Plain text of a line of tokens."""
        if self._truecaser is not None:
            text = self._detruecaser.detruecase(text, return_str=True)
        return self._detokeniser.detokenize(text.split(), unescape=self._settings.escape)


def learn_truecaser(lines, path):
    """Write a truecasing model, in Moses' format, learnt from tokenised lines."""
    from sacremoses import MosesTruecaser

    made = Path(f"{path}.made")
    MosesTruecaser().train([line.split(" ") for line in lines], save_to=str(made))
    shutil.copyfile(made, path)  # sacremoses lets nobody else read what it writes
    made.unlink()
