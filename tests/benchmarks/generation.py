"""dad-generate against fairseq-generate: same model, same text, same beam, same cores, one run.

Both sides take turns; each reports its own decoding speed, without start-up. BLEU of
both outputs is printed, so that speed is not bought with quality.

Example:
  python tests/benchmarks/generation.py --model runs/quickstart/teacher/general \\
      --data runs/quickstart/corpora/general/prepared
"""

import argparse
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from sacrebleu.metrics import BLEU

import fairseq_plugins
from data_prep.files import read_lines
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.generation.generate import generate


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--data", required=True, help="prepared folder with a test set")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="cores for either side")
    args = parser.parse_args()

    vocabulary = read_vocabulary(args.data)
    source = Path(args.data) / f"test.{vocabulary.source_lang}"
    references = list(read_lines(Path(args.data) / f"test.{vocabulary.target_lang}"))
    speeds, outputs = {"fairseq-generate": [], "dad-generate": []}, {}
    for number in range(args.rounds):
        speed, outputs["fairseq-generate"] = fairseq_side(args, vocabulary, len(references))
        speeds["fairseq-generate"].append(speed)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            manifest = generate([args.model], source, out, beam=args.beam, workers=args.threads)
            speeds["dad-generate"].append(manifest["counts"]["sentences_per_second"])
            outputs["dad-generate"] = list(read_lines(out))

    bleu = BLEU(trg_lang=vocabulary.target_lang)
    print(f"{len(references):,} sentences, beam {args.beam}, {args.threads} cores, "
          f"median of {args.rounds} rounds in turn")  # fmt: skip
    for name, values in speeds.items():
        score = bleu.corpus_score(outputs[name], [references]).score
        print(f"{name:<17} {statistics.median(values):8.1f} sentences/s   BLEU {score:.2f}")
    ratios = [ours / theirs for theirs, ours in zip(*speeds.values(), strict=True)]
    print(f"ratio             {statistics.median(ratios):8.2f}")
    print(bleu.get_signature())


def fairseq_side(args, vocabulary, sentences):
    """Speed that fairseq-generate reports, and its output as detokenised lines."""
    done = subprocess.run(
        [
            "fairseq-generate", args.data, "--user-dir", fairseq_plugins.__path__[0],
            "--task", "sequence_distillation", "--path", f"{args.model}/model.pt",
            "--gen-subset", "test", "--beam", str(args.beam), "--max-tokens", "4000",
            "--max-len-a", "2", "--max-len-b", "20", "--cpu",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    subwords = vocabulary.subwords()
    lines = [""] * sentences
    for line in done.stdout.splitlines():
        if line.startswith("H-"):
            number, _, pieces = line.split("\t")
            lines[int(number[2:])] = subwords.decode(pieces.split())
    (speed,) = re.findall(r"\(([\d.]+) sentences/s", done.stdout + done.stderr)
    return float(speed), lines


if __name__ == "__main__":
    main()
