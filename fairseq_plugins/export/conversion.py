"""From a MODEL folder to CTranslate2, with proof that both compute the same.

CTranslate2's converter copies the parts of a transformer that it knows and is silent
about others, so we refuse what it cannot represent, and compare scores afterwards.
"""

import shutil
import time

import torch

from data_prep.files import write_whole_folder
from data_prep.manifest import write_manifest
from fairseq_plugins.checkpoints import check_finite, load_checkpoint
from fairseq_plugins.export.weights import count_parameters
from fairseq_plugins.generation.fairseq_backend import load_models, positions_of, quiet
from fairseq_plugins.generation.models import EXPORTED_FILES, WEIGHTS

COMPUTE_TYPES = ("int8", "int8_float16", "float16", "float32")
TOLERANCE = 2e-3  # largest difference of a token's log-probability, float32 on both sides

# options of fairseq's transformer whose weights or wiring the converter leaves out
REFUSED = {
    "adaptive_input": "--adaptive-input",
    "adaptive_softmax_cutoff": "--adaptive-softmax-cutoff",
    "base_layers": "--base-layers",
    "char_inputs": "--char-inputs",
    "cross_self_attention": "--cross-self-attention",
    "no_cross_attention": "--no-cross-attention",
    "no_decoder_final_norm": "--no-decoder-final-norm",
    "scale_attn": "--scale-attn",
    "scale_fc": "--scale-fc",
    "scale_heads": "--scale-heads",
    "scale_resids": "--scale-resids",
}


def convert(model, out, compute_type="float32", *, trust=False, replace=False):
    """Write ``model`` (a ``ModelFolder`` with ``model.pt``) as EXPORTED folder; return its counts.

    Args:
        model: from ``generation.models.open_model``.
        out: folder to make.
        compute_type: one of ``COMPUTE_TYPES``, how the weights are stored.
        trust: unpickle whatever the checkpoint holds.
        replace: an existing ``out`` gives way.

    Returns:
        dictionary: parameters (all), embedding_parameters, bytes (of the model alone).

    Raises:
        ValueError: CTranslate2 cannot represent the model; says what stands in the way.
        FileExistsError: ``out`` exists.
    """
    started = time.monotonic()
    with write_whole_folder(out, replace=replace) as part:
        counts, settings = write_converted(model, part, compute_type, trust=trust)
        write_manifest(
            part, settings=settings, inputs=[model.weights], counts=counts,
            seconds=time.monotonic() - started,
        )  # fmt: skip
    return counts


def write_converted(model, folder, compute_type, *, trust=False):
    """Fill an empty ``folder`` with the model and its vocabulary; return (counts, settings).

    Both are for the manifest, without which the folder is not complete. For the rest see
    :func:`convert`.
    """
    if compute_type not in COMPUTE_TYPES:
        raise ValueError(f"--compute-type is one of {', '.join(COMPUTE_TYPES)}, not {compute_type}")
    checkpoint = load_checkpoint(model.weights, trust=trust)
    check_finite(checkpoint["model"], model.weights)
    check_convertible(model, checkpoint)
    stored = folder / "float32"
    _convert(model, stored, "float32", trust)
    ensemble, task = load_models([model], trust=trust)
    compare(model, ensemble[0], task, stored)
    if compute_type != "float32":
        shutil.rmtree(stored)
        stored = folder / compute_type
        _convert(model, stored, compute_type, trust)
    for file in sorted(stored.iterdir()):
        file.rename(folder / file.name)
    stored.rmdir()
    model.vocabulary.copy_to(folder)
    counts = count_parameters(checkpoint["model"])
    counts["bytes"] = size_of(folder)
    return counts, {"compute_type": compute_type, "positions": positions_of(ensemble)}


def size_of(folder):
    """Bytes of the files in an exported folder that make up the model alone."""
    written = [folder / name for name in EXPORTED_FILES if (folder / name).exists()]
    return sum(file.stat().st_size for file in written)


def check_convertible(model, checkpoint):
    """Refuse what CTranslate2 cannot represent.

    Args:
        model: ``ModelFolder``, named in the message.
        checkpoint: contents of its ``model.pt``.

    Raises:
        ValueError: names the option.
    """
    settings = checkpoint.get("args") or checkpoint["cfg"]["model"]
    for name, flag in REFUSED.items():
        if getattr(settings, name, None):
            raise ValueError(
                f"{model.path} was trained with {flag}, which CTranslate2 cannot represent; "
                f"decode it with --backend fairseq"
            )


def _convert(model, out, compute_type, trust):
    from ctranslate2.converters import FairseqConverter

    vocabulary = model.vocabulary
    converter = FairseqConverter(
        str(model.path / WEIGHTS),
        str(model.path),
        source_lang=vocabulary.source_lang,
        target_lang=vocabulary.target_lang,
        unsafe_deserialization=trust,
    )
    try:
        with quiet():
            converter.convert(str(out), quantization=compute_type)
    except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
        # NotImplementedError: its documented way to say that it does not know the architecture;
        # its other check lists reasons one a line
        reasons = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"CTranslate2 cannot represent {model.path}: {reasons}; "
            f"decode it with --backend fairseq"
        ) from None


def compare(model, network, task, exported):
    """Check that fairseq and CTranslate2 give a few made-up sentence pairs the same scores.

    Args:
        model: ``ModelFolder``, named in the message.
        network, task: the same model, loaded by fairseq.
        exported: CTranslate2 folder of the same model in float32.

    Raises:
        ValueError: a token's log-probability differs by more than ``TOLERANCE``.
    """
    import ctranslate2

    dictionary = task.target_dictionary
    # any pieces do: what is compared is arithmetic, on lengths from 1 to 9
    pieces = dictionary.symbols[dictionary.nspecial :]
    pairs = [
        (_some(pieces, length, 7), _some(pieces, 10 - length, 11)) for length in range(1, 10)
    ]
    translator = ctranslate2.Translator(str(exported), compute_type="float32", intra_threads=1)
    theirs = translator.score_batch([src for src, _ in pairs], [tgt for _, tgt in pairs])
    for (src, tgt), scored in zip(pairs, theirs, strict=True):
        ours = _log_probs(network, task, src, tgt)
        difference = (ours - torch.tensor(scored.log_probs)).abs().max().item()
        if not difference <= TOLERANCE:
            raise ValueError(
                f"CTranslate2 computes other scores than fairseq for {model.path} (log-probability "
                f"differs by {difference:.2g}), so the model has a part that it cannot represent; "
                f"decode it with --backend fairseq"
            )


def _some(pieces, length, step):
    return [pieces[(step * length + step * number) % len(pieces)] for number in range(length)]


def _log_probs(model, task, src, tgt):
    """Log-probabilities of the target pieces and the end of sentence, (time,)."""
    source, target = task.source_dictionary, task.target_dictionary
    src_tokens = torch.tensor([[source.index(piece) for piece in src] + [source.eos()]])
    tgt_tokens = torch.tensor([target.index(piece) for piece in tgt] + [target.eos()])
    shifted = torch.cat([tgt_tokens[-1:], tgt_tokens[:-1]]).unsqueeze(0)
    with torch.no_grad():
        output = model(src_tokens, torch.tensor([src_tokens.size(1)]), shifted)
        lprobs = model.get_normalized_probs(output, log_probs=True)[0]  # (time, vocab)
    return lprobs.gather(-1, tgt_tokens.unsqueeze(-1)).squeeze(-1)
