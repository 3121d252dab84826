"""Score translations: BLEU and chrF of detokenised text, with interval and signature.

Every line of the hypotheses is compared with the same line of the references.
The scores, intervals (bootstrap) and signatures are sacreBLEU's.

Example:
  dad-score --hypotheses test.hyp.en --references test.en --target-lang en
"""

from data_prep import command
from data_prep.files import read_bitext
from data_prep.manifest import write_json
from fairseq_plugins.evaluation.metrics import METRICS, corpus_scores


def main():
    command.run(_main, "dad-score")


def _main():
    parser = command.parser(__doc__, "dad-score")
    parser.add_argument("--hypotheses", required=True, help="translations, one a line")
    parser.add_argument("--references", required=True, help="untouched references, one a line")
    parser.add_argument("--target-lang", required=True, help="language code, chooses the tokeniser")
    parser.add_argument(
        "--metrics", nargs="+", choices=sorted(METRICS), default=["bleu", "chrf"], help="metrics"
    )
    parser.add_argument("--out", help="also write the scores to this JSON file")
    args = parser.parse_args()
    scores = score_files(args.hypotheses, args.references, args.target_lang, args.metrics)
    for name, entry in scores.items():
        print(
            f"{entry['signature']}  {name.upper()} {entry['score']:.2f} ± {entry['interval']:.2f}"
        )
    if args.out:
        write_json(args.out, scores)


def score_files(hypotheses, references, tgt_lang, names=("bleu", "chrf")):
    """Scores of a file of translations against a file of references.

    Raises:
        ValueError: the files have different numbers of lines, or none.
    """
    pairs = [(hyp, ref) for _, hyp, ref in read_bitext(hypotheses, references)]
    return corpus_scores([hyp for hyp, _ in pairs], [ref for _, ref in pairs], tgt_lang, names)


if __name__ == "__main__":
    main()
