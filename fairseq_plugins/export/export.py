"""Export a model for use: CTranslate2's format, small and fast, with its vocabulary.

The exported folder needs no fairseq and no PyTorch: dad-generate and CTranslate2 read it.
Before it appears, the scores of both formats are compared; a model with a part that
CTranslate2 cannot represent is refused.

Example:
    dad-export --model student/medical --out export/medical --compute-type int8
"""

import sys

from data_prep.command import parser, run
from fairseq_plugins.export.conversion import COMPUTE_TYPES, convert
from fairseq_plugins.export.weights import add_checkpoint_flags
from fairseq_plugins.generation.models import open_model

PROG = "dad-export"


def export(
    model, out, compute_type="int8", *,
    trust=False, allow_unknown_vocabulary=False, replace=False,
):  # fmt: skip
    """Make EXPORTED folder ``out`` from MODEL folder ``model``; return its counts.

    Returns:
        dictionary: parameters (all), embedding_parameters, bytes (of the model alone).

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    found = open_model(model, trust=trust, allow_unknown_vocabulary=allow_unknown_vocabulary)
    if found.exported:
        raise ValueError(f"{model} is an exported model already; name the folder with model.pt")
    return convert(found, out, compute_type, trust=trust, replace=replace)


def main():
    run(_main, PROG)


def _main():
    args = _arguments()
    counts = export(
        args.model, args.out, args.compute_type,
        trust=args.trust_checkpoint,
        allow_unknown_vocabulary=args.allow_unknown_vocabulary,
        replace=args.overwrite,
    )  # fmt: skip
    print(
        f"{args.out}: {args.compute_type}, {counts['parameters']:,} parameters "
        f"({counts['embedding_parameters']:,} of them embeddings), "
        f"{counts['bytes'] / 1e6:.1f} MB; scores agree with fairseq's",
        file=sys.stderr,
    )


def _arguments():
    words = parser(__doc__, PROG)
    words.add_argument("--model", required=True, metavar="DIR", help="MODEL folder")
    words.add_argument("--out", required=True, metavar="DIR", help="EXPORTED folder to make")
    words.add_argument(
        "--compute-type", choices=COMPUTE_TYPES, default="int8",
        help="how weights are stored; the float16 types are for GPUs",
    )  # fmt: skip
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    add_checkpoint_flags(words)
    return words.parse_args()


if __name__ == "__main__":
    main()
