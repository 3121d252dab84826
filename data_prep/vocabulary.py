"""Learn one joint subword vocabulary from general-domain text, or take over a model's own.

Reads train.SRC and train.TGT of text folders and writes a vocabulary folder:

  subwords.model    SentencePiece model of both languages; or, of subword-nmt, bpe.codes
                    and for each language vocab.LANG, the pieces that its lines are cut into
  dict.SRC.txt      the pieces of both languages as a fairseq dictionary
  dict.TGT.txt      the same file for the other language: the vocabulary is joint
  vocabulary.json   kind, languages and the SHA-256 of each file, by which every
                    prepared folder and checkpoint is checked
  manifest.json     what made it

Learn it once per language pair, on general-domain text only, and use it for every
domain: a student can only be adapted from a model that has the same vocabulary.
The same text, settings and seed give the same bytes.

Which --kind?
  unigram      when in doubt. SentencePiece with byte fallback: whatever the text, no
               character is ever unknown, and every line comes back as it was
  bpe          the same with byte-pair merges, where results are compared with BPE models
  subword-nmt  joint BPE as in older papers, which usually --tokenise as well. It has no byte
               fallback: all characters of the training text are pieces, and any other
               becomes <unk>; binarise counts them. Not for Chinese as it is written: without
               spaces whole clauses are one word, and learning may take hours

Text is not tokenised. With --tokenise moses it is, by sacremoses, and undone in whatever is
decoded: for models that were trained on such text. It is not undone exactly: of our text 1 %
(German) to 12 % (English manuals) of the lines come back with other spaces, with --truecase
2 to 19 % with other capitals too. Chinese is not cut into words, only some punctuation is
split off, and half of the lines change: use it for Chinese as the source only.

Example:
  python -m data_prep.vocabulary --train corpora/general/text \\
      --source-lang de --target-lang en --size 8000 --out vocabulary

A model that exists brings its vocabulary: its SentencePiece model, or its codes and the
fairseq dictionaries it was trained with, and what its text went through before.
  python -m data_prep.vocabulary --from-model theirs/spm.model \\
      --from-dictionary theirs/dict.de.txt theirs/dict.en.txt \\
      --source-lang de --target-lang en --out vocabulary
  python -m data_prep.vocabulary --from-codes theirs/bpe.codes \\
      --from-dictionary theirs/dict.de.txt theirs/dict.en.txt --tokenise moses \\
      --source-lang de --target-lang en --out vocabulary

A vocabulary that was made here before, alone or in a model folder, is taken as it is:
  python -m data_prep.vocabulary --from-folder theirs/teacher \\
      --source-lang de --target-lang en --out vocabulary
"""

import argparse
import random
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from data_prep import command, moses
from data_prep.files import (
    find_text,
    read_bitext,
    read_lines,
    sha256,
    write_whole,
    write_whole_folder,
)
from data_prep.learn_subwords import CONTROL_PIECES, learn_codes, learn_sentencepieces
from data_prep.manifest import read_json, write_json, write_manifest
from data_prep.subwords import (
    RESERVED,
    SEPARATOR,
    WORD_START,
    PairCodes,
    SentencePieces,
    Tokenised,
    printable,
)

PROG = "data_prep.vocabulary"
VOCABULARY_FILE = "vocabulary.json"
MODEL_FILE = "subwords.model"
CODES_FILE = "bpe.codes"
TOKENISER_FILE = "tokeniser.json"
KINDS = (SentencePieces.kind, PairCodes.kind)  # what is in vocabulary.json
LEARNT_KINDS = ("unigram", "bpe", "subword-nmt")  # what --kind takes

# fewer of a dictionary's entries among the pieces of a model mean that they are no pair; a few
# others may be tags, or characters that the model does not know
LEAST_EXPLAINED = 0.9
PADDING = re.compile(r"madeupword\d+")  # fairseq makes the size of a dictionary a multiple of 8
EXAMPLES = 3
LONG_WORDS = 12  # characters on average; German and Russian have 5, Chinese has 20


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary folder whose files are those it was made with.

    Attributes:
        folder: where the files lie, a Path.
        kind: how text becomes pieces; "sentencepiece" or "subword-nmt".
        source_lang, target_lang: language codes.
        files: name to SHA-256; the fingerprint that travels with data and models.
    """

    folder: Path
    kind: str
    source_lang: str
    target_lang: str
    files: dict = field(hash=False)

    @property
    def langs(self):
        """(source language, target language)."""
        return self.source_lang, self.target_lang

    def subwords(self, lang):
        """What turns lines of a language into pieces and back, a ``Subwords``."""
        if self.kind == SentencePieces.kind:
            subwords = SentencePieces.load(self.folder / MODEL_FILE)
        else:
            known = read_pieces(self.folder / pieces_file(lang))
            subwords = PairCodes.load(self.folder / CODES_FILE, known)
        if TOKENISER_FILE not in self.files:
            return subwords
        truecaser = truecaser_file(lang)
        return Tokenised(
            subwords,
            moses.Moses(
                lang,
                moses.Settings.read(self.folder / TOKENISER_FILE),
                self.folder / truecaser if truecaser in self.files else None,
            ),
        )

    def dictionary(self, lang):
        """Path of the fairseq dictionary of a language."""
        return self.folder / dictionary_file(lang)

    def copy_to(self, folder):
        """Copy the files and their fingerprint into a folder."""
        for name in (*self.files, VOCABULARY_FILE):
            shutil.copyfile(self.folder / name, Path(folder) / name)


def read_vocabulary(folder):
    """The ``Vocabulary`` in a folder: a vocabulary, prepared, model or exported folder.

    Raises:
        FileNotFoundError: the folder holds no vocabulary.
        ValueError: a file is missing or is not the one recorded.
    """
    folder = Path(folder)
    record_path = folder / VOCABULARY_FILE
    if not record_path.exists():
        raise FileNotFoundError(
            f"{record_path} is missing, so {folder} holds no vocabulary; "
            "make one with python -m data_prep.vocabulary"
        )
    record = read_json(record_path)
    try:
        vocabulary = Vocabulary(
            folder=folder,
            kind=record["kind"],
            source_lang=record["source_lang"],
            target_lang=record["target_lang"],
            files=dict(record["files"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{record_path} does not describe a vocabulary (kind, source_lang, target_lang, "
            "files); copy the folder again or learn the vocabulary anew"
        ) from None
    if vocabulary.kind not in KINDS:
        raise ValueError(
            f"{record_path}: kind {vocabulary.kind!r} is unknown; {' and '.join(map(repr, KINDS))} "
            "are what this version reads"
        )
    for name, recorded in vocabulary.files.items():
        if not (folder / name).exists():
            raise ValueError(
                f"{folder / name} is missing though {record_path.name} lists it; "
                "copy the vocabulary folder again"
            )
        if sha256(folder / name) != recorded:
            raise ValueError(
                f"{folder / name} is not the file that {record_path.name} records "
                "(its SHA-256 differs); copy the vocabulary folder again, or learn the "
                "vocabulary and everything made with it anew"
            )
    return vocabulary


def differences(ours, theirs):
    """Names of the files whose SHA-256 differs or that one side lacks, sorted.

    Args:
        ours, theirs: the ``files`` of two vocabularies, name to SHA-256.
    """
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def dictionary_file(lang):
    """File name of a language's fairseq dictionary."""
    return f"dict.{lang}.txt"


def pieces_file(lang):
    """File name of the pieces that a language's lines are cut into, in subword-nmt's format."""
    return f"vocab.{lang}"


def truecaser_file(lang):
    """File name of a language's truecasing model, in Moses' format."""
    return f"truecaser.{lang}"


# -- files of pieces -----------------------------------------------------------------------


def read_pieces(path):
    """{piece: count} of a fairseq dictionary or a vocabulary of subword-nmt, in its order.

    Raises:
        ValueError: a line is not a piece and a count, or a piece is there twice.
    """
    pieces = {}
    for number, line in enumerate(read_lines(path), start=1):
        piece, _, count = line.rstrip("\r").rpartition(" ")
        if not piece or " " in piece or not count.isdecimal():
            raise ValueError(
                f"{path}, line {number:,}: expected a piece, a space and a count, found "
                f"{line[:80]!r}"
            )
        if piece in pieces:
            raise ValueError(f"{path}, line {number:,}: {piece!r} is there for the second time")
        pieces[piece] = int(count)
    return pieces


def write_pieces(pieces, path):
    """Write {piece: count}, one a line, in its order."""
    with write_whole(path) as out:
        out.writelines(f"{piece} {count}\n" for piece, count in pieces.items())


def write_dictionary(pieces, path):
    """Write {piece: count} as a fairseq dictionary, in its order.

    Raises:
        ValueError: a piece has the name of one of fairseq's own symbols.
    """
    for piece in pieces:
        if piece in RESERVED:
            raise ValueError(
                f"the piece {piece!r} has the name of a symbol that fairseq puts into every "
                f"dictionary by itself, so {path.name} cannot hold it; take it out of the model"
            )
    write_pieces(pieces, path)


# -- learning ------------------------------------------------------------------------------


def sample_bitext(paths, lines, seed, note=lambda src, tgt: None):
    """(sample, pairs read): up to ``lines`` lines, chosen evenly over all pairs.

    Args:
        paths: list of (source path, target path), read one after the other.
        lines: both sides of a chosen pair are taken, so half as many pairs.
        seed: chooses the sample.
        note: called with both sides of every pair.

    Returns:
        list of (source line, target line), printable and in the order of the text; a number.
    """
    generator = random.Random(seed)
    wanted = max(1, lines // 2)  # pairs
    reservoir = []
    number = 0
    pairs = (pair for src_tgt in paths for _, *pair in read_bitext(*src_tgt))
    progress = tqdm(pairs, desc="reading", unit=" pairs", unit_scale=True)
    for number, (src, tgt) in enumerate(progress, start=1):
        note(src, tgt)
        if len(reservoir) < wanted:
            reservoir.append((number, src, tgt))
            continue
        place = generator.randrange(number)
        if place < wanted:
            reservoir[place] = (number, src, tgt)
    return [(printable(src), printable(tgt)) for _, src, tgt in sorted(reservoir)], number


def make_vocabulary(folders, source_lang, target_lang, size, out, *, kind="unigram",
                    character_coverage=0.9995, vocabulary_threshold=50, sample_lines=1_000_000,
                    seed=1, tokeniser=None, truecase=False):  # fmt: skip
    """Write the vocabulary folder ``out`` and return its ``Vocabulary``; see the module's help.

    Args:
        folders: a text folder, or a list of them.
        tokeniser: ``moses.Settings``, or None for text as it is.
        truecase: whether tokens are truecased too.
    """
    started = time.monotonic()
    if kind not in LEARNT_KINDS:
        raise ValueError(f"--kind is one of {', '.join(LEARNT_KINDS)}, not {kind}")
    if sample_lines < 2:
        raise ValueError(f"--sample-lines is 2 or more, not {sample_lines}")
    if vocabulary_threshold < 1:
        raise ValueError(f"--vocabulary-threshold is 1 or more, not {vocabulary_threshold}")
    langs = _two(source_lang, target_lang)
    folders = list(folders) if isinstance(folders, (list, tuple)) else [folders]
    inputs = [[find_text(folder, "train", lang) for lang in langs] for folder in folders]
    characters = set()
    learns_codes = kind == PairCodes.kind

    def note_characters(*pair):
        for line in pair:
            characters.update(printable(line))

    with write_whole_folder(out) as part:
        pairs, read = sample_bitext(
            inputs, sample_lines, seed, *([note_characters] if learns_codes else [])
        )
        lines = sum(map(bool, _texts(pairs)))
        if not lines:
            names = " and ".join(str(path) for pair in inputs for path in pair)
            raise ValueError(f"{names} hold no text; nothing to learn from")
        print(f"learning {size:,} pieces from {lines:,} of {2 * read:,} lines", file=sys.stderr)
        if tokeniser:
            pairs = _tokenise(pairs, langs, tokeniser, truecase, part)
        counts = {"pairs_read": read, "lines_learnt_from": lines}
        if learns_codes:
            sides = list(zip(*pairs, strict=True))
            _warn_of_long_words(langs, sides)
            codes, vocabularies = learn_codes(sides, size, characters, vocabulary_threshold)
            with write_whole(part / CODES_FILE) as file:
                file.writelines(f"{code}\n" for code in codes)
            pieces = Counter()
            for lang, vocabulary in zip(langs, vocabularies, strict=True):
                write_pieces(_often_first(vocabulary), part / pieces_file(lang))
                pieces.update(vocabulary)
            pieces = list(_often_first(pieces))
            counts |= {"merges": len(codes) - 1, "characters": len(characters)}
        else:
            texts = list(filter(None, _texts(pairs)))
            model = learn_sentencepieces(texts, size, character_coverage, kind)
            (part / MODEL_FILE).write_bytes(model)
            pieces = SentencePieces.load(part / MODEL_FILE).pieces
        counts["pieces"] = len(pieces)
        for lang in langs:
            # fairseq needs a count, and no part of ours uses it
            write_dictionary(dict.fromkeys(pieces, 1), part / dictionary_file(lang))
        _write_record(part, PairCodes.kind if learns_codes else SentencePieces.kind, langs)
        write_manifest(
            part,
            settings={
                "kind": kind,
                "source_lang": source_lang,
                "target_lang": target_lang,
                "size": size,
                **(
                    {"vocabulary_threshold": vocabulary_threshold}
                    if learns_codes
                    else {"character_coverage": character_coverage}
                ),
                "sample_lines": sample_lines,
                "tokeniser": asdict(tokeniser) if tokeniser else None,
                "truecase": truecase,
            },
            inputs=[path for pair in inputs for path in pair],
            counts=counts,
            seconds=time.monotonic() - started,
            seed=seed,
        )
    total = len(pieces) + CONTROL_PIECES
    print(f"{out}: {total:,} pieces, joint for {' and '.join(langs)}", file=sys.stderr)
    if learns_codes and total < size / 2:
        print(
            f"that is less than half of --size {size:,}: the other pieces occur fewer than "
            f"{vocabulary_threshold} times in a language; lower --vocabulary-threshold if the "
            "text is small",
            file=sys.stderr,
        )
    return read_vocabulary(out)


def _two(source_lang, target_lang):
    if source_lang == target_lang:
        raise ValueError(f"--source-lang and --target-lang are both {source_lang}")
    return source_lang, target_lang


def _texts(pairs):
    return [text for pair in pairs for text in pair]


def _warn_of_long_words(langs, sides):
    for lang, lines in zip(langs, sides, strict=True):
        words = [len(word) for line in lines for word in line.split()]
        if words and sum(words) > LONG_WORDS * len(words):
            print(
                f"words of {lang} have {sum(words) / len(words):.0f} characters on average, so it "
                "seems to be written without spaces: learning will be slow and pieces will cross "
                "words; take --kind unigram or bpe, or segment the text before",
                file=sys.stderr,
            )


def _often_first(pieces):
    return dict(sorted(pieces.items(), key=lambda item: (-item[1], item[0])))


def _tokenise(pairs, langs, settings, truecase, folder):
    """Pairs as tokens; what has to be known for that is left in the folder."""
    settings.write(folder / TOKENISER_FILE)
    sides = []
    for lang, lines in zip(langs, zip(*pairs, strict=True), strict=True):
        tokeniser = moses.Moses(lang, settings)
        side = [
            tokeniser.tokenise(line)
            for line in tqdm(lines, desc=f"tokenising {lang}", unit=" lines", unit_scale=True)
        ]
        if truecase:
            path = folder / truecaser_file(lang)
            moses.learn_truecaser(side, path)
            side = list(map(moses.Moses(lang, settings, path).truecase, side))
        sides.append(side)
    return list(zip(*sides, strict=True))


def _write_record(folder, kind, langs):
    """Write vocabulary.json for all files that are in the folder."""
    files = sorted(path.name for path in folder.iterdir())
    record = {
        "kind": kind,
        "source_lang": langs[0],
        "target_lang": langs[1],
        "files": {name: sha256(folder / name) for name in files},
    }
    write_json(folder / VOCABULARY_FILE, record)


# -- taking over ---------------------------------------------------------------------------


def adopt_vocabulary(source_lang, target_lang, out, *, model=None, codes=None, dictionaries=(),
                     vocabularies=(), vocabulary_threshold=0, tokeniser=None,
                     truecasers=()):  # fmt: skip
    """Write the vocabulary folder ``out`` of a model that exists; return its ``Vocabulary``.

    Args:
        model: SentencePiece model; or
        codes: codes of subword-nmt.
        dictionaries: the fairseq dictionaries of source and target that the model was trained
            with; one for both; none where a SentencePiece model is to give the order.
        vocabularies: for codes, what ``apply_bpe --vocabulary`` was given, for each language or
            one for both; none: pieces that a dictionary lacks are split.
        vocabulary_threshold: fewest times that a piece is counted there.
        tokeniser: ``moses.Settings``, or None for text as it is.
        truecasers: models of both languages, or none.

    Raises:
        FileNotFoundError, ValueError: a file is missing, is something else or belongs to another
            model.
    """
    started = time.monotonic()
    langs = _two(source_lang, target_lang)
    given = [Path(path) for path in (model or codes, *dictionaries, *vocabularies, *truecasers)]
    dictionaries = _for_both("--from-dictionary", dictionaries)
    vocabularies = _for_both("--from-vocabulary", vocabularies)
    if len(truecasers) not in (0, 2):
        raise ValueError(f"--from-truecaser takes two files, source and target, not {truecasers}")
    if codes and not dictionaries:
        raise ValueError(
            "--from-codes needs --from-dictionary: the numbers of the pieces are in the fairseq "
            "dictionaries that the model was trained with, dict.SRC.txt and dict.TGT.txt"
        )
    with write_whole_folder(out) as part:
        if codes:
            kind, pieces = PairCodes.kind, PairCodes.load(codes).pieces
            shutil.copyfile(codes, part / CODES_FILE)
        else:
            kind, pieces = SentencePieces.kind, SentencePieces.load(model).pieces
            shutil.copyfile(model, part / MODEL_FILE)
        counts, entries = {}, [dict.fromkeys(pieces, 1)] * 2
        if dictionaries:
            entries = [read_pieces(path) for path in dictionaries]
            for path, entry in zip(dictionaries, entries, strict=True):
                _check_explained(path, entry, pieces, model or codes)
        for side, lang in enumerate(langs):
            write_dictionary(entries[side], part / dictionary_file(lang))
            counts[lang] = {"pieces": len(entries[side])}
            if codes:
                known = entries[side]
                if vocabularies:
                    wanted = read_pieces(vocabularies[side])
                    _check_explained(vocabularies[side], wanted, known, dictionaries[side])
                    known = {
                        piece: count
                        for piece, count in wanted.items()
                        if count >= vocabulary_threshold and piece in known
                    }
                write_pieces(known, part / pieces_file(lang))
                counts[lang]["known"] = len(known)
            else:
                counts[lang]["missing"] = len(set(pieces) - entries[side].keys())
            if truecasers:
                shutil.copyfile(truecasers[side], part / truecaser_file(lang))
        if tokeniser:
            tokeniser.write(part / TOKENISER_FILE)
        _write_record(part, kind, langs)
        adopted = read_vocabulary(part)
        for lang in langs:
            adopted.subwords(lang)  # reads the truecasing models, too
        write_manifest(
            part,
            settings={
                "source_lang": source_lang,
                "target_lang": target_lang,
                "vocabulary_threshold": vocabulary_threshold,
                "tokeniser": asdict(tokeniser) if tokeniser else None,
                "truecase": bool(truecasers),
            },
            inputs=given,
            counts=counts,
            seconds=time.monotonic() - started,
        )
    for lang in langs:
        numbers = counts[lang]
        print(f"{out}: {numbers['pieces']:,} pieces for {lang}", file=sys.stderr)
        if numbers.get("missing"):
            print(
                f"{numbers['missing']:,} of the model's pieces are not in the dictionary of "
                f"{lang}: they become <unk>, and binarise counts them",
                file=sys.stderr,
            )
    if entries[0].keys() != entries[1].keys() or list(entries[0]) != list(entries[1]):
        print(
            "the dictionaries of the two languages differ, so a model cannot share all its "
            "embeddings; the sizes of this project (dad_small and so on) do",
            file=sys.stderr,
        )
    return read_vocabulary(out)


def copy_vocabulary(source_lang, target_lang, out, folder):
    """Copy the vocabulary in ``folder`` to the new folder ``out``; return its ``Vocabulary``.

    Args:
        folder: a vocabulary folder, or any that holds one: a model, exported or prepared folder.

    Raises:
        FileNotFoundError: ``folder`` holds no vocabulary.
        ValueError: it is damaged, or one of other languages.
    """
    started = time.monotonic()
    theirs = read_vocabulary(folder)
    if theirs.langs != _two(source_lang, target_lang):
        raise ValueError(
            f"{theirs.folder / VOCABULARY_FILE} is for {' → '.join(theirs.langs)}, not for "
            f"{source_lang} → {target_lang}; name the vocabulary of that pair, in that direction"
        )
    with write_whole_folder(out) as part:
        theirs.copy_to(part)
        pieces = {lang: len(read_pieces(theirs.dictionary(lang))) for lang in theirs.langs}
        write_manifest(
            part,
            settings={"source_lang": source_lang, "target_lang": target_lang},
            inputs=[theirs.folder / name for name in (*theirs.files, VOCABULARY_FILE)],
            counts={lang: {"pieces": number} for lang, number in pieces.items()},
            seconds=time.monotonic() - started,
        )
    numbers = " and ".join(f"{number:,} pieces for {lang}" for lang, number in pieces.items())
    print(f"{out}: {numbers}, as they are in {folder}", file=sys.stderr)
    return read_vocabulary(out)


def _for_both(flag, paths):
    """Two paths, or none; one is for both languages."""
    if len(paths) > 2:
        raise ValueError(f"{flag} takes one file or two, source and target, not {len(paths)}")
    return [Path(path) for path in (paths * 2 if len(paths) == 1 else paths)]


def _check_explained(path, entries, pieces, origin):
    """Refuse a list of pieces of which too many are unknown to where they should come from."""
    pieces = set(pieces)
    strange = [
        entry
        for entry in entries
        if entry not in pieces
        and len(entry.removeprefix(WORD_START).removesuffix(SEPARATOR)) > 1
        and not PADDING.fullmatch(entry)
    ]
    if len(strange) > (1 - LEAST_EXPLAINED) * len(entries):
        raise ValueError(
            f"{path} has {len(entries):,} pieces, of which {len(strange):,} are none of {origin}, "
            f"such as {', '.join(strange[:EXAMPLES])}: they belong to different models; take both "
            "from where one model came from"
        )


# -- the command ---------------------------------------------------------------------------


def main():
    command.run(_main, PROG)


def _main(argv=None):
    args = vars(_parser().parse_args(argv))
    tokeniser = _tokeniser(args)
    places = [args.pop(name) for name in ("source_lang", "target_lang")]
    out = args.pop("out")
    taken = {name: args.pop(name) for name in _TAKEN_OVER if name in args}
    if not taken:
        if "train" not in args:
            raise ValueError("--train is missing; or name a vocabulary that exists with "
                             "--from-folder, --from-model or --from-codes")  # fmt: skip
        for flag, kinds in _ONLY_FOR.items():
            if flag in args and args.get("kind", "unigram") not in kinds:
                raise ValueError(
                    f"--{flag.replace('_', '-')} belongs to --kind {' and '.join(kinds)}"
                )
        size = args.pop("size", DEFAULT_SIZE)
        make_vocabulary(args.pop("train"), *places, size, out, tokeniser=tokeniser, **args)
        return
    threshold = {name: args.pop(name) for name in ("vocabulary_threshold",) if name in args}
    if args.pop("truecase", False):
        raise ValueError(
            "--truecase learns how words are written; name a model that exists with "
            "--from-truecaser"
        )
    if args:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in args)
        raise ValueError(
            f"{flags} is for learning a vocabulary; one that is taken over is as it is"
        )
    if "from_folder" in taken:
        if len(taken) > 1 or threshold or tokeniser:
            raise ValueError("--from-folder takes all that a vocabulary is; drop the other flags")
        copy_vocabulary(*places, out, taken["from_folder"])
        return
    if ("from_model" in taken) == ("from_codes" in taken):
        raise ValueError(
            "name one of --from-folder (a vocabulary made here), --from-model (a SentencePiece "
            "model) and --from-codes (of subword-nmt)"
        )
    if "from_model" in taken and ("from_vocabulary" in taken or threshold):
        raise ValueError(
            "--from-vocabulary and --vocabulary-threshold belong to --from-codes, not --from-model"
        )
    if "from_truecaser" in taken and not tokeniser:
        raise ValueError("--from-truecaser needs --tokenise moses, which comes before it")
    adopt_vocabulary(
        *places, out, tokeniser=tokeniser, **threshold,
        **{_TAKEN_OVER[name]: value for name, value in taken.items()},
    )  # fmt: skip


DEFAULT_SIZE = 8000
_ONLY_FOR = {"character_coverage": ("unigram", "bpe"), "vocabulary_threshold": ("subword-nmt",)}
_TAKEN_OVER = {
    "from_model": "model", "from_codes": "codes", "from_dictionary": "dictionaries",
    "from_vocabulary": "vocabularies", "from_truecaser": "truecasers", "from_folder": "folder",
}  # fmt: skip


def _tokeniser(args):
    """``moses.Settings`` from the command line, or None; takes its flags out of ``args``."""
    chosen = args.pop("tokenise", None)
    flags = ("moses_no_dash_splits", "moses_no_escape")
    given = {name: args.pop(name) for name in flags if name in args}
    if chosen is None:
        for name in [*given, *(["truecase"] if "truecase" in args else [])]:
            raise ValueError(f"--{name.replace('_', '-')} needs --tokenise moses")
        return None
    return moses.Settings(**{name.removeprefix("moses_no_"): False for name in given})


def _parser():
    parser = command.parser(__doc__, f"python -m {PROG}")
    # what was not given is not there, so that what cannot be used is noticed
    parser.argument_default = argparse.SUPPRESS
    required = {"required": True}
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument("--out", metavar="DIR", help="vocabulary folder to write", **required)
    learning = parser.add_argument_group("learning")
    learning.add_argument(
        "--train", metavar="DIR", action="append",
        help="text folder with train.SRC and train.TGT, plain, .gz or .zst; may be repeated",
    )  # fmt: skip
    learning.add_argument(
        "--kind", choices=LEARNT_KINDS, help="see above (default: unigram)",
    )  # fmt: skip
    learning.add_argument(
        "--size", type=int, metavar="N",
        help="number of pieces, 256 bytes and 3 control pieces among them; with subword-nmt at "
        f"most this many, each character twice among them (default: {DEFAULT_SIZE})",
    )  # fmt: skip
    learning.add_argument(
        "--character-coverage", type=float, metavar="SHARE",
        help="unigram, bpe: share of all characters that get a piece; rarer ones are spelt in "
        "bytes (default: 0.9995)",
    )  # fmt: skip
    learning.add_argument(
        "--vocabulary-threshold", type=int, metavar="N",
        help="subword-nmt: a piece that occurs fewer times in a language is split there (default: "
        "50, as in its README; less for a few thousand lines); with --from-vocabulary, what "
        "apply-bpe was given (default there: 0)",
    )  # fmt: skip
    learning.add_argument(
        "--sample-lines", type=int, metavar="LINES",
        help="learn from at most this many lines, half of them in each language "
        "(default: 1000000)",
    )  # fmt: skip
    learning.add_argument("--seed", type=int, metavar="N", help="chooses the sample (default: 1)")
    tokenising = parser.add_argument_group("tokenising, for models that need it")
    tokenising.add_argument(
        "--tokenise", choices=[moses.TOKENISER],
        help="tokenise before cutting into pieces, and undo it when decoding (default: no)",
    )  # fmt: skip
    tokenising.add_argument(
        "--truecase", action="store_true",
        help="give words their usual case; sentences get a capital again when decoding",
    )  # fmt: skip
    tokenising.add_argument(
        "--moses-no-dash-splits", action="store_true", help="leave well-known as it is, one word"
    )
    tokenising.add_argument(
        "--moses-no-escape", action="store_true", help="leave & and quotes as they are"
    )
    taking = parser.add_argument_group("taking over the vocabulary of a model that exists")
    taking.add_argument(
        "--from-folder", metavar="DIR",
        help="vocabulary folder, or a model folder that holds one: it is copied",
    )  # fmt: skip
    taking.add_argument("--from-model", metavar="FILE", help="its SentencePiece model")
    taking.add_argument("--from-codes", metavar="FILE", help="its codes of subword-nmt")
    taking.add_argument(
        "--from-dictionary", metavar="FILE", nargs="+",
        help="its fairseq dictionaries, source and target, or one for both; with --from-model "
        "the model's own order is taken where none is named",
    )  # fmt: skip
    taking.add_argument(
        "--from-vocabulary", metavar="FILE", nargs="+",
        help="what apply-bpe --vocabulary was given, source and target, or one for both",
    )  # fmt: skip
    taking.add_argument(
        "--from-truecaser", metavar="FILE", nargs=2,
        help="its truecasing models, source and target",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
