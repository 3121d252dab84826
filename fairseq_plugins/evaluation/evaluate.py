"""Decode the test sets with one model, greedy and with a beam, and score the output.

Writes into --out, for every test set NAME, the translations NAME.greedy.LANG and
NAME.beam.LANG, and scores.json with BLEU and chrF of both and TER of the beam's output (sacreBLEU,
detokenised, with signature and 95 % interval), indicators of the beam's output (dad-score
--list-indicators says what they are), the model's size and its number of parameters. (sacreBLEU's
TER takes longer than a small model's decoding; dad-score has it of any output.)

--train names text that the model may have seen; from it come terms (words that are frequent there
and rare in the other --train), rare words, and what the output takes verbatim. --extract N asks
for extractive memorisation (Raunak & Menezes 2022; Dankers & Raunak 2025): of N pairs drawn from
each --train, how many targets does the model give word by word when it sees the source, and when it
sees only the first three quarters of the source?

Example:
  dad-evaluate --model student/small/9/medical/exported --label "adapted teacher's output" \\
      --test medical=corpora/medical/text --test general=corpora/general/text \\
      --train medical=corpora/medical/text --train general=corpora/general/text --out scores/9
"""

import random
import tempfile
from pathlib import Path

from data_prep import command
from data_prep.files import find_text, read_bitext, read_lines, write_whole, write_whole_folder
from data_prep.manifest import read_manifest, write_json
from data_prep.vocabulary import read_vocabulary
from data_prep.words import words_of
from fairseq_plugins.evaluation.indicators import VERBATIM_WORDS, value
from fairseq_plugins.evaluation.score import pairs, references_of, train_text
from fairseq_plugins.evaluation.scoring import Settings, TestSet, score_test_set
from fairseq_plugins.evaluation.training_text import gather_facts
from fairseq_plugins.generation.generate import generate

SCORES = "scores.json"
METRICS = {"beam": ("bleu", "chrf", "ter"), "greedy": ("bleu", "chrf")}
PREFIX = 0.75  # of the words of a source
SEED = 1


def main():
    command.run(_main, "dad-evaluate")


def _main():
    parser = command.parser(__doc__, "dad-evaluate")
    parser.add_argument("--model", required=True, help="folder made by dad-export")
    parser.add_argument("--name", help="what the model is called in tables (default: its folder)")
    parser.add_argument("--label", default="", help="what it was trained on, in words")
    parser.add_argument(
        "--test", dest="tests", action="append", required=True, metavar="NAME=DIR",
        help="text folder with test.SRC and test.TGT; may be repeated",
    )  # fmt: skip
    parser.add_argument("--beam", type=int, default=5, help="beam; greedy decoding is added")
    parser.add_argument(
        "--train", dest="trains", action="append", default=[], metavar="[NAME=]DIR",
        help="text folder with train.TGT that the model may have seen; may be repeated. Named as a "
        "test set (or in the folder of one), terms of that test set are mined from it",
    )  # fmt: skip
    parser.add_argument(
        "--extract", type=int, default=0, metavar="N",
        help="pairs of each --train to ask for extractive memorisation",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="folder to make")
    args = parser.parse_args()
    tests = pairs(args.tests, "--test takes NAME=DIR")
    if args.extract < 0:
        raise ValueError(f"--extract is 0 or more, not {args.extract}")
    if args.extract and not args.trains:
        raise ValueError("--extract draws pairs from training text; name it with --train")
    with write_whole_folder(args.out) as part:
        record = evaluate(args.model, tests, part, beam=args.beam, trains=args.trains,
                          extract=args.extract)  # fmt: skip
        record = {
            "name": args.name or args.model,
            "label": args.label,
            "model": args.model,
            **record,
        }
        write_json(part / SCORES, record)
    for test_set, entry in record["test_sets"].items():
        beam, greedy = entry["beam"], entry["greedy"]
        print(
            f"{record['name']} on {test_set} ({entry['lines']:,} sentences): "
            f"BLEU {beam['bleu']['score']:.1f} ± {beam['bleu']['interval']:.1f} "
            f"(greedy {greedy['bleu']['score']:.1f}), chrF {beam['chrf']['score']:.1f}, "
            f"TER {beam['ter']['score']:.1f}"
        )
    for train, entry in record.get("memorisation", {}).items():
        print(
            f"{record['name']} gives {entry['replication']['count']:,} of "
            f"{entry['replication']['of']:,} targets of {train} verbatim, "
            f"{entry['extractive']['count']:,} of them from three quarters of the source"
        )


def evaluate(model, tests, out, beam=5, trains=(), extract=0):
    """Translate and score test sets; returns what ``scores.json`` holds.

    Args:
        model: exported folder.
        tests: {name: text folder with ``test.SRC`` and ``test.TGT``}.
        out: existing folder for the translations.
        beam: beam size of the second decoding, besides greedy.
        trains: ``DIR`` or ``NAME=DIR`` of training text, see ``train_text``.
        extract: pairs of each to ask for extractive memorisation.

    Raises:
        FileNotFoundError: the model, a test set or a training text is missing.
        ValueError: a test set is not parallel.
    """
    vocabulary = read_vocabulary(model)
    src_lang, tgt_lang = vocabulary.source_lang, vocabulary.target_lang
    counts = read_manifest(model)["counts"]
    folders = dict(train_text(text, tests, tgt_lang) for text in trains)
    sets = {
        name: TestSet(name, references_of(folder, tgt_lang), find_text(folder, "test", src_lang))
        for name, folder in tests.items()
    }
    outputs = {
        name: {mode: Path(out) / f"{name}.{mode}.{tgt_lang}" for mode in METRICS} for name in tests
    }
    for name, test_set in sets.items():
        for mode, size in (("beam", beam), ("greedy", 1)):
            generate([model], test_set.source, outputs[name][mode], beam=size, calibration="off")
    facts = gather_facts({name: one.references for name, one in sets.items()},
                         {name: [files["beam"]] for name, files in outputs.items()},
                         folders, None, tgt_lang)  # fmt: skip
    record = {"counts": counts, "beam": beam, "test_sets": {}}
    for name, test_set in sets.items():
        found = {}
        for mode, metrics in METRICS.items():
            settings = Settings(tgt_lang, metrics, indicators=mode == "beam")
            result = score_test_set(test_set, {mode: outputs[name][mode]}, settings, facts[name])
            found[mode] = result["systems"][mode]
        record["test_sets"][name] = {
            "lines": result["lines"],
            **{mode: system["scores"] for mode, system in found.items()},
            "indicators": found["beam"]["indicators"],
        }
    if extract:
        record["memorisation"] = {
            name: memorisation(model, Path(path).parent, src_lang, tgt_lang, extract, Path(out))
            for name, path in folders.items()
        }
    return record


def memorisation(model, folder, src_lang, tgt_lang, number, out):
    """How many training targets a model gives verbatim, by greedy decoding.

    Replication: of the whole source. Extractive memorisation: also of its first three quarters
    alone, which do not tell what the rest of the target says (Raunak & Menezes 2022; Dankers &
    Raunak 2025, who try shorter beginnings, too). Pairs with 5 words or more on both sides are
    drawn, and equal ones once.

    Args:
        folder: text folder with ``train.SRC`` and ``train.TGT``.
        number: of pairs to draw, all if there are fewer.
        out: folder for what is decoded meanwhile.

    Returns:
        {"replication", "extractive"}: each {"value", "count", "of"}, see ``indicators.value``.
    """
    sources, targets = zip(*_drawn(folder, src_lang, tgt_lang, number), strict=True)
    beginnings = [_beginning(source) for source in sources]
    with tempfile.TemporaryDirectory(dir=out) as place:
        whole, part = (
            _decoded(model, texts, Path(place) / f"{name}.{src_lang}", tgt_lang)
            for texts, name in ((sources, "whole"), (beginnings, "beginnings"))
        )
    same = [one == target for one, target in zip(whole, targets, strict=True)]
    extracted = [one and other == target
                 for one, other, target in zip(same, part, targets, strict=True)]  # fmt: skip
    return {"replication": value(sum(same), len(same)),
            "extractive": value(sum(extracted), len(extracted))}  # fmt: skip


def _drawn(folder, src_lang, tgt_lang, number):
    """So many pairs, each as likely as any other (Vitter 1985, algorithm R); equal ones once."""
    chance, drawn, count = random.Random(SEED), [], 0
    files = [find_text(folder, "train", lang) for lang in (src_lang, tgt_lang)]
    for _, source, target in read_bitext(*files):
        if min(len(words_of(source)), len(words_of(target))) < VERBATIM_WORDS:
            continue
        count += 1
        place = len(drawn) if len(drawn) < number else chance.randrange(count)
        if place < number:
            drawn[place : place + 1] = [(source, target)]
    if not drawn:
        raise ValueError(f"{folder} has no pair with {VERBATIM_WORDS} words or more on both sides")
    return list(dict.fromkeys(drawn))


def _beginning(source):
    words = words_of(source)
    kept = words[: max(1, int(PREFIX * len(words)))]
    # where the last kept word ends, so that spaces, or that there are none, stay as they are
    end = 0
    for word in kept:
        end = source.index(word, end) + len(word)
    return source[:end]


def _decoded(model, sources, path, tgt_lang):
    with write_whole(path) as out:
        out.writelines(source + "\n" for source in sources)
    translations = path.with_suffix(f".{tgt_lang}")
    generate([model], path, translations, beam=1, calibration="off")
    return list(read_lines(translations))


if __name__ == "__main__":
    main()
