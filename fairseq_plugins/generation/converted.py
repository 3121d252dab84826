"""Models that others trained and CTranslate2's own converters converted: text in, text out.

CONVERTED folder: ``model.bin``, ``config.json``, the vocabulary (``shared_vocabulary.json``, or
``source_`` and ``target_vocabulary.json``; ``.txt`` from older converters) and beside them the
model's own subwords, under one of these names (or wherever --source-subwords and
--target-subwords say):

  source.spm, target.spm    SentencePiece, one for each language: OPUS-MT, Marian
  sentencepiece.bpe.model, sentencepiece.model, spiece.model, spm.model, subwords.model
                            SentencePiece, one for both: M2M-100, NLLB, T5, OpenNMT, fairseq
  source.bpe, target.bpe    codes of subword-nmt (first line ``#version: 0.2``), one for each
  bpe.codes                 codes of subword-nmt, one for both

What stands around the pieces of a line is a convention of whoever trained the model, and
CTranslate2 adds only what ``config.json`` tells it to:

  converter                          the caller adds to the source    and forces in the target
  ct2-fairseq, -marian, -opus-mt     nothing                          nothing
  ct2-opennmt-py, -tf                nothing                          nothing
  ct2-transformers: Marian, T5       ``</s>`` at the end              nothing
  the same: M2M-100, NLLB, mBART-50  language first, ``</s>`` last    language
  OPUS-MT into several languages     ``>>deu<<`` first as well        nothing

The end of sentence is found out from ``config.json``. Languages cannot be: a vocabulary with
language tokens is refused until they are named (``--source-prefix '>>deu<<'``).

Truecasing and tokenising (Moses, sacremoses, jieba) are not done: a model that was trained on
such text needs its source files prepared so, and its translations detokenised.
"""

import io
import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.files import read_lines, sha256
from data_prep.subwords import CODES_HEADER, PairCodes, SentencePieces, printable
from data_prep.vocabulary import CODES_FILE, MODEL_FILE, VOCABULARY_FILE
from fairseq_plugins.generation.models import EXPORTED_WEIGHTS, WEIGHTS, open_model

CONFIG = "config.json"
FOR_EACH = (("source.spm", "target.spm"), ("source.bpe", "target.bpe"))
FOR_BOTH = ("sentencepiece.bpe.model", "sentencepiece.model", "spiece.model", "spm.model",
            MODEL_FILE, CODES_FILE)  # fmt: skip

BINARY_VERSION = 6  # the model.bin that goes with a config.json
TRANSLATION_MODEL = "TransformerSpec"
TABLE = "{side}/position_encodings/encodings"
# a model without a table of positions reads any length, but has seen sentences of this size
POSITIONS_WITHOUT_TABLE = 512

# less of the subword model's pieces in the vocabulary means that they are no pair; more means
# little, since joint pieces of two scripts may be listed on one side only
LEAST_KNOWN = 0.1

# how families of multilingual models write a language, and the fewest such tokens that are no
# accident
SOURCE_LANGUAGE_TOKENS = ((re.compile(r">>[^<>\s]+<<"), 2),)  # OPUS-MT
LANGUAGE_TOKENS = (
    (re.compile(r"__[a-z]{2,3}(_[A-Za-z]+)?__"), 2),  # M2M-100, fairseq
    (re.compile(r"\[?[a-z]{2}_[A-Z]{2}\]?"), 10),  # mBART
    (re.compile(r"[a-z]{3}_[A-Z][a-z]{3}"), 10),  # NLLB
)
EXAMPLES = 5


@dataclass(frozen=True)
class ConvertedModel:
    """A CONVERTED folder that was found complete.

    Attributes:
        path: the folder, a Path.
        files: what shapes the translations, name or role to SHA-256.
        positions: most pieces that can be read and written, {"source": n, "target": n}.
        source_prefix, source_suffix: tokens around the pieces of every source line.
        target_prefix: tokens that every translation begins with, ``[]`` for none. CTranslate2
            counts them among the pieces of a translation, but not in its score.
        subword_files: {"source": path, "target": path}.
        suppressed: tokens of the target vocabulary that must never be generated. CTranslate2
            refuses to suppress a token that the vocabulary lacks.
    """

    path: Path
    files: dict
    positions: dict
    source_prefix: list
    source_suffix: list
    target_prefix: list
    suppressed: list
    subword_files: dict
    _forced: list = field(repr=False)  # what of the prefix comes back in a translation
    _special: frozenset = field(repr=False)
    _source: object = field(repr=False)
    _target: object = field(repr=False)

    exported = True  # CTranslate2 can load it as it is

    @property
    def weights(self):
        return self.path / EXPORTED_WEIGHTS

    def codec(self):
        """What turns text into pieces and back."""
        return self

    @property
    def settings(self):
        """What shapes the translations beside the files, for the identity of a decoding."""
        return {
            "source_prefix": self.source_prefix,
            "source_suffix": self.source_suffix,
            "target_prefix": self.target_prefix,
        }

    def encode_batch(self, lines, threads=1):
        """Pieces of each line, prefix and suffix among them; ``[]`` for a line without text."""
        return [
            [*self.source_prefix, *pieces, *self.source_suffix] if pieces else []
            for pieces in self._source.encode_batch(lines, threads=threads)
        ]

    def cut(self, pieces, longest):
        """The beginning of an encoded line, at most ``longest`` pieces with prefix and suffix.

        Raises:
            ValueError: prefix and suffix alone are as long.
        """
        if len(pieces) <= longest:
            return pieces
        kept = longest - len(self.source_suffix)
        if kept <= len(self.source_prefix):
            raise ValueError(
                f"{longest} source pieces leave no room for text beside "
                f"{' '.join([*self.source_prefix, *self.source_suffix])}; allow more"
            )
        return [*pieces[:kept], *self.source_suffix]

    def decode(self, pieces):
        """Text of a translation, one line, without target prefix and special tokens."""
        pieces = list(pieces)
        if pieces[: len(self._forced)] == self._forced:
            pieces = pieces[len(self._forced) :]
        text = self._target.decode([piece for piece in pieces if piece not in self._special])
        # SentencePiece leaves the word mark of a piece that it does not know, and a vocabulary
        # of both languages has pieces of the source that the target's model does not know
        return printable(text)

    def decode_batch(self, sentences):
        """``decode`` of each of many lists of pieces."""
        return [self.decode(pieces) for pieces in sentences]


def is_converted(path):
    """Whether a folder holds a CTranslate2 model that did not come from dad-export."""
    path = Path(path)
    return (path / EXPORTED_WEIGHTS).is_file() and not (path / VOCABULARY_FILE).is_file()


def open_converted(
    path, *, source_subwords=None, target_subwords=None,
    source_prefix=None, source_suffix=None, target_prefix=None,
    source_positions=None, target_positions=None,
):  # fmt: skip
    """The ``ConvertedModel`` in a CONVERTED folder, its subwords loaded.

    Args:
        path: folder with ``model.bin``.
        source_subwords, target_subwords: SentencePiece models or subword-nmt codes, where they
            do not lie in the folder under a known name; both or neither.
        source_prefix, source_suffix, target_prefix: tokens, a list or a string with spaces;
            empty for none; None: the end of sentence where the model needs it, else none.
        source_positions, target_positions: most pieces; None: as many as the model has positions
            for, or 512 when it has no table of them.

    Raises:
        FileNotFoundError: model, vocabulary or subwords are missing; names what was looked for.
        ValueError: the files do not belong together, CTranslate2 or this module cannot use
            them, or a token that only the user knows has to be named.
    """
    path = Path(path)
    _check_folder(path)
    lengths = _tables(path / EXPORTED_WEIGHTS)
    config = _read_config(path / CONFIG)
    vocabulary_files, vocabularies = _read_vocabularies(path)
    subword_files = _find_subwords(path, source_subwords, target_subwords)
    source, target = (
        _load_subwords(subword_files[side], vocabularies[side]) for side in ("source", "target")
    )
    start, eos = config["decoder_start_token"], config["eos_token"]
    if source_suffix is None:
        # OpenNMT starts from <s> and reads no end of sentence; all others do read it
        reads_end = not config["add_source_eos"] and start in (None, eos, "<pad>")
        source_suffix = [eos] if reads_end else []
    languages = _check_languages(path, vocabularies, source_prefix, target_prefix)
    around = {
        "source": {"--source-prefix": source_prefix, "--source-suffix": source_suffix},
        "target": {"--target-prefix": target_prefix},
    }
    tokens = {
        flag: _check_tokens(path, flag, given, vocabularies[side], side)
        for side, flags in around.items()
        for flag, given in flags.items()
    }
    if start is None and not tokens["--target-prefix"]:
        raise ValueError(
            f"{path / CONFIG} names no decoder_start_token, so the caller has to: the token that "
            f"the decoder starts from comes first in --target-prefix, for example {eos} or a "
            f"language"
        )
    outside = {config["bos_token"], "<s>", "<pad>", "<blank>", start} - {None, eos}
    return ConvertedModel(
        path=path,
        files={
            **{file.name: sha256(file)
               for file in (path / EXPORTED_WEIGHTS, path / CONFIG, *vocabulary_files)},
            **{f"{side} subwords": sha256(file) for side, file in subword_files.items()},
        },
        positions={
            "source": _positions(path, "source", lengths["encoder"], source_positions),
            "target": _positions(path, "target", lengths["decoder"], target_positions),
        },
        source_prefix=tokens["--source-prefix"],
        source_suffix=tokens["--source-suffix"],
        target_prefix=tokens["--target-prefix"],
        suppressed=sorted(outside & vocabularies["target"].keys()),
        subword_files=subword_files,
        # a start token is taken from the prefix and not given back
        _forced=tokens["--target-prefix"][1 if start is None else 0 :],
        _special=frozenset(outside | {eos} | languages),
        _source=source,
        _target=target,
    )  # fmt: skip


def open_exported(path, **conventions):
    """The model of an EXPORTED or a CONVERTED folder, for which PyTorch is not needed.

    Args:
        path: folder with ``model.bin``.
        conventions: for a CONVERTED folder, see :func:`open_converted`; None: not given.

    Returns:
        ``ModelFolder`` or ``ConvertedModel``.

    Raises:
        FileNotFoundError, ValueError: see ``open_model`` and :func:`open_converted`.
    """
    path = Path(path)
    given = {name: value for name, value in conventions.items() if value is not None}
    if is_converted(path):
        return open_converted(path, **given)
    refuse_conventions(path, **given)
    if (path / WEIGHTS).is_file() and not (path / EXPORTED_WEIGHTS).is_file():
        raise ValueError(
            f"{path} holds {WEIGHTS}, which needs fairseq; export it, and name what comes of it: "
            f"dad-export --model {path} --out EXPORTED"
        )
    return open_model(path)


def refuse_conventions(path, **given):
    """Refuse what only :func:`open_converted` takes, for a folder that is none of its kind."""
    for name in given:
        raise ValueError(
            f"--{name.replace('_', '-')} is for a folder that one of CTranslate2's converters "
            f"made; {path} is not one"
        )


def add_conventions(words):
    """The flags of every command that reads CONVERTED folders, as :func:`open_converted` takes."""
    foreign = words.add_argument_group("a model that CTranslate2's own converters made")
    for side in ("source", "target"):
        foreign.add_argument(f"--{side}-subwords", metavar="FILE",
                             help="SentencePiece model or subword-nmt codes, unless it lies beside "
                             "model.bin under a usual name")  # fmt: skip
    for flag, where in (("--source-prefix", "before every source line"),
                        ("--source-suffix", "after every source line"),
                        ("--target-prefix", "before every translation")):  # fmt: skip
        foreign.add_argument(flag, metavar="TOKENS",
                             help=f"pieces {where}, such as a language; unset: what can be "
                             "found out")  # fmt: skip
    for side in ("source", "target"):
        foreign.add_argument(f"--{side}-positions", type=int, metavar="N",
                             help="most pieces; unset: what the model has")  # fmt: skip


# -- what lies in the folder ---------------------------------------------------------------


def _check_folder(path):
    if path.is_file():
        raise ValueError(f"{path} is a file; name the folder that holds {EXPORTED_WEIGHTS}")
    if not path.is_dir():
        raise FileNotFoundError(f"model folder {path} is missing")
    if not (path / EXPORTED_WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{path} holds no {EXPORTED_WEIGHTS}; convert the model, for example with "
            f"ct2-opus-mt-converter --model_dir DIR --output_dir {path} or "
            f"ct2-transformers-converter --model DIR --output_dir {path}, and put its subword "
            f"models beside {EXPORTED_WEIGHTS}"
        )


def _tables(path):
    """Rows of the encoder's and the decoder's table of positions, None where there is none.

    Raises:
        ValueError: the file is no translation model of a CTranslate2 that still works.
    """
    with open(path, "rb") as file:
        try:
            (version,) = _unpack(file, "I")
            if version != BINARY_VERSION and 0 < version < 100:  # else it is some other file
                raise ValueError(
                    f"{path} has the binary format {version}, and {BINARY_VERSION} is what this "
                    f"version reads; convert the model again with the ctranslate2 that is "
                    f"installed here"
                )
            kind = _text(file)
            _unpack(file, "I")  # revision
            if kind != TRANSLATION_MODEL:
                raise ValueError(
                    f"{path} is a {kind}, not a translation model with encoder and decoder "
                    f"({TRANSLATION_MODEL}); a language model can be a teacher through a file of "
                    f"its translations"
                )
            rows = {}
            for _ in range(*_unpack(file, "I")):
                name = _text(file)
                shape = _unpack(file, "I" * _unpack(file, "B")[0])
                _unpack(file, "B")  # type
                file.seek(_unpack(file, "I")[0], io.SEEK_CUR)
                rows[name] = shape[0] if shape else None
            for _ in range(*_unpack(file, "I")):  # other names of the same variable
                alias = _text(file)
                rows[alias] = rows.get(_text(file))
        except (struct.error, UnicodeDecodeError):
            raise ValueError(
                f"{path} is no CTranslate2 model or is damaged; copy it again or convert the "
                f"model again"
            ) from None
    return {side: rows.get(TABLE.format(side=side)) for side in ("encoder", "decoder")}


def _unpack(file, layout):
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _text(file):
    (length,) = _unpack(file, "H")
    (data,) = _unpack(file, f"{length}s")
    return data.rstrip(b"\0").decode("utf-8")


def _read_config(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; CTranslate2's converters write it beside {EXPORTED_WEIGHTS}: "
            f"copy it too, or convert the model again"
        )
    config = _read_json(path)
    try:
        names = ("add_source_eos", "bos_token", "decoder_start_token", "eos_token")
        config = {name: config[name] for name in names}
        tokens = [config["bos_token"], config["eos_token"], config["decoder_start_token"] or ""]
        if not all(isinstance(token, str) for token in tokens):
            raise TypeError
    except (KeyError, TypeError):
        raise ValueError(
            f"{path} is not the configuration of a translation model ({', '.join(names)}); "
            f"convert the model again"
        ) from None
    return config


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); convert the model again") from None


def _read_vocabularies(path):
    """(files, {"source": {token: index}, "target": {token: index}})."""
    several = sorted(path.glob("source_[0-9]*_vocabulary.*"))
    if several:
        raise ValueError(
            f"{several[0]}: the model reads source features beside its pieces, which text does "
            f"not have; take another teacher"
        )
    shared = _vocabulary_file(path, "shared")
    if shared:
        tokens = _read_vocabulary(shared)
        return [shared], {"source": tokens, "target": tokens}
    files = {side: _vocabulary_file(path, side) for side in ("source", "target")}
    missing = [side for side, file in files.items() if file is None]
    if missing:
        raise FileNotFoundError(
            f"{path} holds no vocabulary: neither shared_vocabulary.json nor "
            f"{missing[0]}_vocabulary.json (nor the same with .txt); CTranslate2's converters "
            f"write them beside {EXPORTED_WEIGHTS}: copy them too"
        )
    return list(files.values()), {side: _read_vocabulary(file) for side, file in files.items()}


def _vocabulary_file(path, name):
    candidates = (path / f"{name}_vocabulary{ending}" for ending in (".json", ".txt"))
    return next((file for file in candidates if file.is_file()), None)


def _read_vocabulary(path):
    tokens = _read_json(path) if path.suffix == ".json" else list(read_lines(path))
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{path} is not a list of tokens; convert the model again")
    return {token: index for index, token in enumerate(tokens)}


def _positions(path, side, table, wanted):
    if wanted is None:
        return table or POSITIONS_WITHOUT_TABLE
    if wanted < 1:
        raise ValueError(f"--{side}-positions is 1 or more, not {wanted}")
    if table and wanted > table:
        raise ValueError(f"--{side}-positions {wanted} is more than the {table} of {path}")
    return wanted


# -- subwords ------------------------------------------------------------------------------


def _find_subwords(path, source, target):
    """{"source": file, "target": file}; the same one twice when it is for both."""
    if (source is None) != (target is None):
        missing = "--source-subwords" if source is None else "--target-subwords"
        raise ValueError(
            f"{missing} is missing; name both, the same file twice when it is for both languages"
        )
    if source is not None:
        for file in (source, target):
            if not Path(file).is_file():
                raise FileNotFoundError(f"subword model {file} is missing")
        return {"source": Path(source), "target": Path(target)}
    found = [pair for pair in (*FOR_EACH, *((name, name) for name in FOR_BOTH))
             if all((path / name).is_file() for name in pair)]  # fmt: skip
    if not found:
        pairs = ", ".join(" and ".join(pair) for pair in FOR_EACH)
        half = next((name for pair in FOR_EACH for name in pair if (path / name).is_file()), None)
        raise FileNotFoundError(
            f"{path} holds no subword models"
            + (f" but {half}, half of a pair" if half else "")
            + f": looked for {pairs}, {', '.join(FOR_BOTH)}; copy those of the original model "
            f"there, or name them with --source-subwords and --target-subwords"
        )
    if len(found) > 1:
        names = " or ".join(" and ".join(dict.fromkeys(pair)) for pair in found)
        raise ValueError(
            f"{path} holds several subword models, {names}; say which with --source-subwords and "
            f"--target-subwords"
        )
    ((source, target),) = found
    return {"source": path / source, "target": path / target}


def _load_subwords(path, vocabulary):
    """``SentencePieces`` or ``PairCodes``, by what the file holds."""
    with open(path, "rb") as file:
        beginning = file.read(64)
    if beginning.removeprefix(b"\xef\xbb\xbf").startswith(b"#version:"):
        subwords = PairCodes.load(path, known=vocabulary)
        pieces = subwords.pieces
    else:
        try:
            subwords = SentencePieces.load(path)
        except ValueError:
            raise ValueError(
                f"{path} is neither a SentencePiece model nor codes of subword-nmt, whose first "
                f"line is {CODES_HEADER!r} (codes of fastBPE are not read); copy it again from "
                f"the original model"
            ) from None
        pieces = subwords.scores()
    known = sum(piece in vocabulary for piece in pieces)
    if known < LEAST_KNOWN * len(pieces):
        raise ValueError(
            f"{path} makes {len(pieces):,} pieces, of which the model's vocabulary has "
            f"{known:,}: it belongs to another model; copy the subword models from where the "
            f"model came from"
        )
    return subwords


# -- tokens around the pieces --------------------------------------------------------------


def _check_languages(path, vocabularies, source_prefix, target_prefix):
    """Language tokens of the target vocabulary; refuses a language that was not named."""
    on_source = _tokens(vocabularies["source"], SOURCE_LANGUAGE_TOKENS)
    on_both = _tokens(vocabularies["target"], LANGUAGE_TOKENS)
    for flag, given, tokens in (
        ("--source-prefix", source_prefix, on_source or on_both),
        ("--target-prefix", target_prefix, on_both),
    ):
        if tokens and given is None:
            raise ValueError(
                f"{path} translates between several languages: name one with {flag}, for example "
                f"{flag} '{tokens[0]}' (there are {', '.join(tokens[:EXAMPLES])}"
                f"{' ...' if len(tokens) > EXAMPLES else ''}), or {flag} '' if it needs none"
            )
    return {*_tokens(vocabularies["target"], SOURCE_LANGUAGE_TOKENS), *on_both}


def _tokens(vocabulary, families):
    for form, fewest in families:
        tokens = [token for token in vocabulary if form.fullmatch(token)]
        if len(tokens) >= fewest:
            return tokens
    return []


def _check_tokens(path, flag, given, vocabulary, side):
    tokens = given.split() if isinstance(given, str) else list(given or ())
    for token in tokens:
        if token not in vocabulary:
            raise ValueError(
                f"{flag} {token}: the {side} vocabulary of {path} has no such token, and "
                f"CTranslate2 would read it as unknown; look up its spelling in the vocabulary"
            )
    return tokens
