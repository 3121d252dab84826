"""Export a model for use: CTranslate2's format, small and fast, with its vocabulary and a card.

The exported folder needs no fairseq and no PyTorch: dad-translate, dad-generate and CTranslate2
read it. README.md in it, the model card, says what the model is, how to use it, what it was made
of and how good it is, as far as you name the records:

  --text      text folders that it was trained on: how much, how it was cleaned; licences and
              citations of the data lie in the raw folders they were made of, or see --licences
  --scores    what dad-evaluate wrote of this model, exported with the same --compute-type
  --speed     what dad-speed wrote
  --dev       a dev set, for the check below
How it was trained is read from the records of its run, where it lies in one.

Two checks are made before the folder appears. In float32, the log-probabilities of made-up
sentences must be those of fairseq, whatever you ask for: a model with a part that CTranslate2
cannot represent is refused. With --dev, lines of a dev set are decoded by fairseq and by the
exported model, and the export fails if it lost more than --max-loss BLEU, greedy or with a
beam. The default is for int8: of 14 pairs of model and dev set (250 lines, 1 to 27 BLEU) it
changed BLEU by -0.3 to +0.4, on average by less than 0.01, and 78 to 96 % of the translations
stayed the same.

Which --compute-type?
  int8           for CPUs: a quarter of the size, the fastest there
  int8_float16   for GPUs: int8 weights, the rest in float16
  float16        for GPUs: half the size
  float32        as it was trained; where int8 loses too much

--shortlist learns from text which target pieces may translate which source pieces, and adds
vmap.txt: the output layer then computes only those, which saves the more, the larger the vocabulary
and the smaller the model. Name the text that the student learnt from, and --dev: what a shortlist
forbids cannot come, and what may come depends a little on the other sentences of a batch.
dad-generate and dad-translate use it where it is there.

Examples:
  dad-export --model student/medical --out export/medical
  dad-export --model student/small/9/medical --out shipped/medical --domain medical \\
      --dev corpora/medical/text --text corpora/general/text --text corpora/medical/text \\
      --scores scores/medical/student/small/9/medical --speed speed/medical/speed.json \\
      --licence CC-BY-4.0 --safetensors
"""

import shutil
import sys
import time

from data_prep.command import parser, run
from data_prep.files import sha256, write_whole_folder
from data_prep.manifest import write_manifest
from fairseq_plugins.checkpoints import load_checkpoint
from fairseq_plugins.export import card as model_card
from fairseq_plugins.export import parity
from fairseq_plugins.export.conversion import COMPUTE_TYPES, size_of, write_converted
from fairseq_plugins.export.safe_weights import SAFE_WEIGHTS, write_safetensors
from fairseq_plugins.export.shortlist import FREQUENT, LIKELY, write_shortlist
from fairseq_plugins.export.weights import weights_only_state
from fairseq_plugins.generation.models import EXPORTED_WEIGHTS, add_checkpoint_flags, open_model

PROG = "dad-export"


def export(
    model, out, compute_type="int8", *, dev=None, dev_lines=parity.DEV_LINES, beam=5,
    max_loss=parity.MAX_LOSS, device=None, safetensors=False, shortlist=(),
    shortlist_likely=LIKELY, shortlist_frequent=FREQUENT, about=None,
    trust=False, allow_unknown_vocabulary=False, replace=False,
):  # fmt: skip
    """Make EXPORTED folder ``out`` from MODEL folder ``model``; return its manifest's counts.

    Args:
        model, out: folders.
        compute_type: one of ``COMPUTE_TYPES``.
        dev: text folder for the parity check, or None.
        dev_lines, beam, device: see ``parity.measure``.
        max_loss: most BLEU that the export may lose there.
        safetensors: add ``model.safetensors``.
        shortlist: text folders to learn a shortlist from; none: no shortlist.
        shortlist_likely, shortlist_frequent: see ``shortlist.write_shortlist``.
        about: dictionary of what ``card.collect`` may be told: name, domain, licence, texts,
            licences, scores, speed, speed_row.
        trust: unpickle whatever a checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a vocabulary fingerprint.
        replace: an existing ``out`` gives way.

    Returns:
        dictionary: parameters (all), embedding_parameters, bytes (of the model alone), and parity
        (see ``parity.measure``, with max_loss) and decode_seconds where there was a dev set.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    started = time.monotonic()
    parity.check_limit(max_loss)
    found = open_model(model, trust=trust, allow_unknown_vocabulary=allow_unknown_vocabulary)
    if found.exported:
        raise ValueError(f"{model} is an exported model already; name the folder with model.pt")
    with write_whole_folder(out, replace=replace) as part:
        counts, settings = write_converted(found, part, compute_type, trust=trust)
        if shortlist:
            settings["shortlist"] = write_shortlist(
                part, shortlist, found.vocabulary, shortlist_likely, shortlist_frequent
            )
            counts["bytes"] = size_of(part)

        def finish():
            write_manifest(
                part,
                settings={**settings, "dev_lines": dev_lines if dev else None},
                inputs=[found.weights],
                counts=counts,
                seconds=time.monotonic() - started,
            )

        finish()  # the folder is complete for decoding
        measured = None
        if dev:
            scratch = part / "parity"
            scratch.mkdir()
            measured, seconds = parity.measure(
                found, part, dev, scratch, lines=dev_lines, beam=beam, device=device, trust=trust,
                allow_unknown_vocabulary=allow_unknown_vocabulary,
            )  # fmt: skip
            shutil.rmtree(scratch)
            parity.check(measured, max_loss, dev)
            measured["max_loss"] = max_loss
        if safetensors:
            state = load_checkpoint(found.weights, trust=trust)
            write_safetensors(part / SAFE_WEIGHTS, weights_only_state(state, found.vocabulary))
        weights = {path.name: sha256(path) for path in (found.weights, part / EXPORTED_WEIGHTS)}
        record = model_card.collect(
            found, part, counts=counts, settings=settings, weights=weights, parity=measured,
            known_as=[model, out], **(about or {}),
        )  # fmt: skip
        model_card.write_card(part, record)
        if measured:
            counts = {**counts, "parity": measured, "decode_seconds": seconds}
        finish()
    return counts


def main():
    run(_main, PROG)


def _main():
    args = _arguments()
    about = {
        "name": args.name, "domain": args.domain, "licence": args.licence, "texts": args.text,
        "licences": args.licences, "scores": args.scores, "speed": args.speed,
        "speed_row": args.speed_row,
    }  # fmt: skip
    counts = export(
        args.model, args.out, args.compute_type,
        dev=args.dev, dev_lines=args.dev_lines, beam=args.beam, max_loss=args.max_loss,
        device=None if args.device == "auto" else args.device,
        safetensors=args.safetensors, shortlist=args.shortlist,
        shortlist_likely=args.shortlist_likely, shortlist_frequent=args.shortlist_frequent,
        about=about,
        trust=args.trust_checkpoint,
        allow_unknown_vocabulary=args.allow_unknown_vocabulary,
        replace=args.overwrite,
    )  # fmt: skip
    print(
        f"{args.out}: {args.compute_type}, {counts['parameters']:,} parameters "
        f"({counts['embedding_parameters']:,} of them embeddings), "
        f"{counts['bytes'] / 1e6:.1f} MB; {_verdict(counts.get('parity'))}",
        file=sys.stderr,
    )


def _verdict(measured):
    if measured is None:
        return "log-probabilities agree with fairseq's; no --dev, so not compared on text"
    words = [
        f"{how} BLEU {entry['exported']['bleu']['score']:.2f}, in fairseq "
        f"{entry['fairseq']['bleu']['score']:.2f}, {entry['identical']:.0%} of the translations "
        f"the same"
        for how, entry in ((f"beam {measured['beam_size']}", measured["beam"]),
                           ("greedy", measured["greedy"]))
    ]  # fmt: skip
    return f"on {measured['lines']:,} lines of the dev set {'; '.join(words)}"


def _arguments():
    words = parser(__doc__, PROG)
    words.add_argument("--model", required=True, metavar="DIR", help="MODEL folder")
    words.add_argument("--out", required=True, metavar="DIR", help="EXPORTED folder to make")
    words.add_argument("--compute-type", choices=COMPUTE_TYPES, default="int8",
                       help="how weights are stored, see above")  # fmt: skip
    words.add_argument("--safetensors", action="store_true",
                       help="add model.safetensors, the weights before the conversion; "
                       "dad-keep-weights makes a MODEL folder of it again")  # fmt: skip
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    add_checkpoint_flags(words)

    fast = words.add_argument_group("shortlist, see above")
    fast.add_argument("--shortlist", action="append", default=[], metavar="DIR",
                      help="text folder with train.SRC and train.TGT; may be repeated")  # fmt: skip
    fast.add_argument("--shortlist-likely", type=int, default=LIKELY, metavar="N",
                      help="target pieces for each source piece")  # fmt: skip
    fast.add_argument("--shortlist-frequent", type=int, default=FREQUENT, metavar="N",
                      help="most frequent target pieces, which are always allowed")  # fmt: skip

    check = words.add_argument_group("comparing with fairseq on text")
    check.add_argument("--dev", metavar="DIR", help="text folder with dev.SRC and dev.TGT")
    check.add_argument("--dev-lines", type=int, default=parity.DEV_LINES, metavar="N",
                       help="decode at most so many of its lines, evenly spread")  # fmt: skip
    check.add_argument("--beam", type=int, default=5, metavar="N",
                       help="beam; greedy decoding is compared, too")  # fmt: skip
    check.add_argument("--max-loss", type=float, default=parity.MAX_LOSS, metavar="BLEU",
                       help="fail if the exported model is worse by more")  # fmt: skip
    check.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                       help="where both decode; auto: a GPU where one is found")  # fmt: skip

    card = words.add_argument_group("model card")
    card.add_argument("--name", help="of the model; unset: domain and languages")
    card.add_argument("--domain", metavar="NAME", help="text that it is intended for")
    card.add_argument("--licence", metavar="SPDX",
                      help="of the model, for example CC-BY-4.0; unset: not stated")  # fmt: skip
    card.add_argument("--text", action="append", default=[], metavar="DIR",
                      help="text folder that it was trained on; may be repeated")  # fmt: skip
    card.add_argument("--licences", action="append", default=[], metavar="FILE",
                      help="licences.tsv of data that no --text leads to; may be "
                      "repeated")  # fmt: skip
    card.add_argument("--scores", metavar="DIR", help="folder of dad-evaluate, or its scores.json")
    card.add_argument("--speed", metavar="FILE", help="speed.json of dad-speed")
    card.add_argument("--speed-row", metavar="MODEL",
                      help="the model's name in there, where it cannot be told")  # fmt: skip
    return words.parse_args()


if __name__ == "__main__":
    main()
