"""Decode the test sets with one model, greedy and with a beam, and score the output.

Writes into --out, for every test set NAME, the translations NAME.greedy.LANG and
NAME.beam.LANG, and scores.json with BLEU and chrF (sacreBLEU, detokenised, with
signature and 95 % interval), the model's size and its number of parameters.

Example:
  dad-evaluate --model student/small/9/medical/exported --label "adapted teacher's output" \\
      --test medical=corpora/medical/text --test general=corpora/general/text --out scores/9
"""

from pathlib import Path

from data_prep import command
from data_prep.files import find_text, write_whole_folder
from data_prep.manifest import read_manifest, write_json
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.evaluation.score import score_files
from fairseq_plugins.generation.generate import generate

SCORES = "scores.json"


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
    parser.add_argument("--out", required=True, help="folder to make")
    args = parser.parse_args()
    tests = dict(_name_and_folder(text) for text in args.tests)
    with write_whole_folder(args.out) as part:
        record = evaluate(args.model, tests, part, beam=args.beam)
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
            f"(greedy {greedy['bleu']['score']:.1f}), chrF {beam['chrf']['score']:.1f}"
        )


def evaluate(model, tests, out, beam=5):
    """Translate and score test sets; returns what ``scores.json`` holds.

    Args:
        model: exported folder.
        tests: {name: text folder with ``test.SRC`` and ``test.TGT``}.
        out: existing folder for the translations.
        beam: beam size of the second decoding, besides greedy.

    Raises:
        FileNotFoundError: the model or a test set is missing.
        ValueError: a test set is not parallel.
    """
    vocabulary = read_vocabulary(model)
    src_lang, tgt_lang = vocabulary.source_lang, vocabulary.target_lang
    counts = read_manifest(model)["counts"]
    record = {"counts": counts, "beam": beam, "test_sets": {}}
    for name, folder in tests.items():
        source = find_text(folder, "test", src_lang)
        references = find_text(folder, "test", tgt_lang)
        entry = {}
        for mode, size in (("beam", beam), ("greedy", 1)):
            hypotheses = Path(out) / f"{name}.{mode}.{tgt_lang}"
            manifest = generate([model], source, hypotheses, beam=size, calibration="off")
            entry["lines"] = manifest["counts"]["lines"]
            entry[mode] = score_files(hypotheses, references, tgt_lang)
        record["test_sets"][name] = entry
    return record


def _name_and_folder(text):
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise ValueError(f"--test takes NAME=DIR, not {text!r}")
    return name, folder


if __name__ == "__main__":
    main()
