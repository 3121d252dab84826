"""Learn one joint subword vocabulary from general-domain text.

Reads train.SRC and train.TGT of a text folder and writes a vocabulary folder:

  subwords.model    SentencePiece unigram model of both languages, with byte
                    fallback, so that no character is ever unknown
  dict.SRC.txt      the same pieces as a fairseq dictionary
  dict.TGT.txt      the same file for the other language: the vocabulary is joint
  vocabulary.json   languages and the SHA-256 of each file, by which every
                    prepared folder and checkpoint is checked
  manifest.json     what made it

Learn it once per language pair, on general-domain text only, and use it for every
domain: a student can only be adapted from a model that has the same vocabulary.
The same text, settings and seed give the same bytes.

Example:
  python -m data_prep.vocabulary --train corpora/general/text \\
      --source-lang de --target-lang en --size 8000 --out vocabulary
"""

import argparse
import io
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
from tqdm import tqdm

from data_prep import command
from data_prep.files import find_text, read_bitext, sha256, write_whole, write_whole_folder
from data_prep.manifest import read_json, write_json, write_manifest
from data_prep.subwords import Subwords, printable

PROG = "data_prep.vocabulary"
VOCABULARY_FILE = "vocabulary.json"
MODEL_FILE = "subwords.model"
BYTE_PIECES = 256  # byte fallback: one piece per byte value
CONTROL_PIECES = 3  # <unk> <s> </s>, which fairseq's dictionary adds by itself

# SentencePiece silently leaves out lines that hold this character, which it uses inside
SENTENCEPIECE_RESERVED = "\u2585"


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary folder whose files are those it was made with.

    Attributes:
        folder: where the files lie, a Path.
        kind: how text becomes pieces; "sentencepiece".
        source_lang, target_lang: language codes.
        files: name to SHA-256; the fingerprint that travels with data and models.
    """

    folder: Path
    kind: str
    source_lang: str
    target_lang: str
    files: dict

    def subwords(self):
        """The subword model, ready to encode and decode."""
        return Subwords.load(self.folder / MODEL_FILE)

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
    if vocabulary.kind != "sentencepiece":
        raise ValueError(
            f"{record_path}: kind {vocabulary.kind!r} is unknown; 'sentencepiece' is what "
            "this version reads"
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


def sample_bitext(src_path, tgt_path, lines, seed):
    """(sample, pairs read): up to ``lines`` lines, chosen evenly over all pairs.

    Both sides of a chosen pair are taken, in corpus order. Empty lines are left out.
    """
    generator = random.Random(seed)
    wanted = max(1, lines // 2)  # pairs
    reservoir = []
    number = 0
    progress = tqdm(
        read_bitext(src_path, tgt_path), desc="reading", unit=" pairs", unit_scale=True
    )
    for number, src, tgt in progress:
        if len(reservoir) < wanted:
            reservoir.append((number, src, tgt))
            continue
        place = generator.randrange(number)
        if place < wanted:
            reservoir[place] = (number, src, tgt)
    texts = [
        printable(text.replace(SENTENCEPIECE_RESERVED, " "))
        for _, *pair in sorted(reservoir)
        for text in pair
    ]
    return [text for text in texts if text], number


def learn(texts, size, character_coverage=0.9995):
    """Bytes of a SentencePiece unigram model with ``size`` pieces.

    Args:
        texts: list of str, one line each, not empty.
        size: number of pieces, 256 byte pieces and 3 control pieces among them.
        character_coverage: share of the characters, by frequency, that get their own
            piece; the rest is spelt in bytes.

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
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # an iterator and a writer, so that no path gets into the model's bytes
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            character_coverage=character_coverage,
            byte_fallback=True,
            # the text stays as it is ("…" would become "..."): references are never altered,
            # and a student that cannot write their characters cannot match them
            normalization_rule_name="identity",
            # longer lines are left out silently, so none is longer (unit: bytes)
            max_sentence_length=max(len(text.encode()) for text in texts) + 1,
            # sums of floats depend on how lines are shared out among threads
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_size_fault(size, str(error))) from None
    return model.getvalue()


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


def write_dictionary(model_path, path):
    """Write the pieces of a model as a fairseq dictionary, in the model's order; their number.

    Control pieces are left out because fairseq puts its own before the first line. The
    count of each piece is 1, as fairseq needs one and no part of ours uses it.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=Path(model_path).read_bytes())
    pieces = [
        processor.id_to_piece(index)
        for index in range(processor.get_piece_size())
        if not processor.is_control(index) and not processor.is_unknown(index)
    ]
    with write_whole(path) as out:
        out.writelines(f"{piece} 1\n" for piece in pieces)
    return len(pieces)


def make_vocabulary(text, source_lang, target_lang, size, out,
                    character_coverage=0.9995, sample_lines=1_000_000, seed=1):  # fmt: skip
    """Write the vocabulary folder ``out`` and return its ``Vocabulary``; see the module's help."""
    started = time.monotonic()
    if sample_lines < 2:
        raise ValueError(f"--sample-lines is 2 or more, not {sample_lines}")
    langs = (source_lang, target_lang)
    if source_lang == target_lang:
        raise ValueError(f"--source-lang and --target-lang are both {source_lang}")
    inputs = [find_text(text, "train", lang) for lang in langs]
    with write_whole_folder(out) as part:
        texts, pairs = sample_bitext(*inputs, lines=sample_lines, seed=seed)
        if not texts:
            raise ValueError(f"{inputs[0]} and {inputs[1]} hold no text; nothing to learn from")
        print(
            f"learning {size:,} pieces from {len(texts):,} of {2 * pairs:,} lines",
            file=sys.stderr,
        )
        (part / MODEL_FILE).write_bytes(learn(texts, size, character_coverage))
        for lang in langs:
            pieces = write_dictionary(part / MODEL_FILE, part / dictionary_file(lang))
        files = [MODEL_FILE, *(dictionary_file(lang) for lang in langs)]
        record = {
            "kind": "sentencepiece",
            "source_lang": source_lang,
            "target_lang": target_lang,
            "files": {name: sha256(part / name) for name in files},
        }
        write_json(part / VOCABULARY_FILE, record)
        write_manifest(
            part,
            settings={
                "source_lang": source_lang,
                "target_lang": target_lang,
                "size": size,
                "character_coverage": character_coverage,
                "sample_lines": sample_lines,
            },
            inputs=inputs,
            counts={"pairs_read": pairs, "lines_learnt_from": len(texts), "pieces": pieces},
            seconds=time.monotonic() - started,
            seed=seed,
        )
    print(
        f"{out}: {pieces + CONTROL_PIECES:,} pieces, joint for {' and '.join(langs)}",
        file=sys.stderr,
    )
    return read_vocabulary(out)


def main():
    command.run(_main, PROG)


def _main(argv=None):
    parser = command.parser(__doc__, f"python -m {PROG}")
    required = {"required": True, "default": argparse.SUPPRESS}
    parser.add_argument(
        "--train", metavar="DIR", **required,
        help="text folder with train.SRC and train.TGT, plain, .gz or .zst",
    )  # fmt: skip
    parser.add_argument("--source-lang", metavar="SRC", help="for example de", **required)
    parser.add_argument("--target-lang", metavar="TGT", help="for example en", **required)
    parser.add_argument("--out", metavar="DIR", help="vocabulary folder to write", **required)
    parser.add_argument(
        "--size", type=int, default=8000,
        help="number of pieces, 256 bytes and 3 control pieces among them",
    )  # fmt: skip
    parser.add_argument(
        "--character-coverage", type=float, default=0.9995, metavar="SHARE",
        help="share of all characters that get a piece; rarer ones are spelt in bytes",
    )  # fmt: skip
    parser.add_argument(
        "--sample-lines", type=int, default=1_000_000, metavar="LINES",
        help="learn from at most this many lines, half of them in each language",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="chooses the sample")
    args = parser.parse_args(argv)
    make_vocabulary(
        args.train, args.source_lang, args.target_lang, args.size, args.out,
        args.character_coverage, args.sample_lines, args.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
