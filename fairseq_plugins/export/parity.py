"""Parity: whether an exported model translates as well as the model it was made from.

Rounding weights to int8 costs little, but how little depends on the model, and a fault of the
conversion may cost anything. So lines of the dev set are decoded by fairseq in float32 and by the
exported model, greedy and with the same beam, and both are scored against the references.

With a shortlist a batch may use what the source pieces of all its sentences allow, so the exported
model gets one sentence at a time here: no batch can be worse off.
"""

import math
from pathlib import Path

from data_prep.files import find_text, read_bitext, write_whole
from fairseq_plugins.evaluation.metrics import corpus_scores
from fairseq_plugins.generation.ctranslate2_backend import has_shortlist
from fairseq_plugins.generation.generate import generate

DEV_LINES = 500
# BLEU. Of 14 pairs of a model and a dev set of 250 lines (1 to 27 BLEU), int8 changed BLEU by -0.3
# to +0.4 in either search: what is worse than this is no noise of rounding
MAX_LOSS = 0.5


def check_limit(max_loss):
    """Refuse a limit that no loss could be compared with."""
    if not 0 <= max_loss < math.inf:
        raise ValueError(f"--max-loss is in BLEU, 0 or more, not {max_loss}")


def sample_dev(dev, vocabulary, folder, lines=DEV_LINES):
    """Write evenly spread lines of a dev set into ``folder``.

    Args:
        dev: text folder with ``dev.SRC`` and ``dev.TGT``.
        vocabulary: of the model, says which languages these are.
        folder: an existing one.
        lines: how many; all where the dev set has fewer.

    Returns:
        (path of the source lines, list of references, number of lines in the dev set).

    Raises:
        FileNotFoundError: the folder has no dev set of these languages; says what it has.
        ValueError: the two sides are not parallel, or there are no lines.
    """
    if lines < 1:
        raise ValueError(f"--dev-lines is 1 or more, not {lines}")
    dev = Path(dev)
    src_lang, tgt_lang = vocabulary.langs
    try:
        paths = [find_text(dev, "dev", lang) for lang in vocabulary.langs]
    except FileNotFoundError as error:
        present = sorted(path.name for path in dev.glob("dev.*"))
        there = f"the folder has {', '.join(present)}" if present else "it has no dev.*"
        raise FileNotFoundError(
            f"{error}: --dev is a text folder with dev.{src_lang} and dev.{tgt_lang}, the "
            f"languages of the model; {there if dev.is_dir() else 'there is no such folder'}"
        ) from None
    pairs = [(src, tgt) for _, src, tgt in read_bitext(*paths)]
    if not pairs:
        raise ValueError(f"{paths[0]} has no lines; parity is measured on a dev set")
    number = min(lines, len(pairs))
    chosen = [pairs[index * len(pairs) // number] for index in range(number)]
    source = folder / f"dev.{src_lang}"
    with write_whole(source) as out:
        out.writelines(src + "\n" for src, _ in chosen)
    return source, [tgt for _, tgt in chosen], len(pairs)


def measure(model, exported, dev, folder, *, lines=DEV_LINES, beam=5, device=None, trust=False,
            allow_unknown_vocabulary=False):  # fmt: skip
    """Decode a dev set with both models, and score them.

    Args:
        model: ``ModelFolder`` with ``model.pt``.
        exported: complete EXPORTED folder made from it.
        dev: text folder with ``dev.SRC`` and ``dev.TGT``.
        folder: an existing one for the translations.
        lines: most lines to decode, evenly spread over the dev set.
        beam: of the first search; the second is greedy.
        device: "cpu", "cuda" or None (a GPU where one is found).

    Returns:
        (record, seconds that were spent decoding). The record is {"lines", "of", "beam": {...},
        "greedy": {...}, "beam_size", "device", "computed_in"}. Each search has "fairseq" and
        "exported" (BLEU and chrF, see ``corpus_scores``), "bleu_loss" (what the export lost; below
        0 it gained) and "identical", the share of equal translations. "computed_in" is the
        arithmetic that CTranslate2 used here.

    Raises:
        FileNotFoundError, ValueError: see :func:`sample_dev`.
    """
    if beam < 1:
        raise ValueError(f"--beam is 1 or more, not {beam}")
    source, references, total = sample_dev(dev, model.vocabulary, folder, lines)
    record = {"lines": len(references), "of": total, "beam_size": beam}
    tgt_lang = model.vocabulary.target_lang
    alone = {"batch_tokens": 1} if has_shortlist(exported) else {}
    decode_seconds = 0.0
    for search, size in (("beam", beam), ("greedy", 1)):
        entry, translations = {}, {}
        for name, path, how in (
            ("fairseq", model.path, {"backend": "fairseq", "compute_type": "float32"}),
            ("exported", exported, alone),
        ):
            out = folder / f"{name}.{search}.{tgt_lang}"
            manifest = generate(
                [path], source, out, beam=size, device=device, calibration="off", trust=trust,
                allow_unknown_vocabulary=allow_unknown_vocabulary, **how,
            )  # fmt: skip
            decode_seconds += manifest["counts"]["decode_seconds"]
            translations[name] = [line for _, line, _ in read_bitext(out, source)]
            entry[name] = corpus_scores(translations[name], references, tgt_lang)
        equal = sum(map(str.__eq__, translations["fairseq"], translations["exported"]))
        loss = entry["fairseq"]["bleu"]["score"] - entry["exported"]["bleu"]["score"]
        record[search] = {
            **entry, "bleu_loss": round(loss, 2), "identical": round(equal / len(references), 4),
        }  # fmt: skip
        record["device"] = manifest["settings"]["device"]
    record["computed_in"] = _computed_in(exported, record["device"])
    return record, round(decode_seconds, 3)


def check(record, max_loss, dev):
    """Refuse an export that lost more than ``max_loss`` BLEU, greedy or with a beam.

    Args:
        record: the first of what :func:`measure` returns.
        max_loss: limit, in BLEU.
        dev: named in the message.

    Raises:
        ValueError: it did; says how much, and what helps.
    """
    worst = max(("beam", "greedy"), key=lambda search: record[search]["bleu_loss"])
    entry = record[worst]
    if entry["bleu_loss"] > max_loss:
        ours, theirs = (entry[name]["bleu"]["score"] for name in ("exported", "fairseq"))
        how = f"beam {record['beam_size']}" if worst == "beam" else "greedy"
        raise ValueError(
            f"the exported model loses {entry['bleu_loss']:.2f} BLEU on {record['lines']:,} lines "
            f"of {dev} ({how}: {ours:.2f}, fairseq {theirs:.2f}; {entry['identical']:.0%} of the "
            f"translations are the same), more than --max-loss {max_loss:g}. Nothing was written. "
            f"Export with --compute-type float32, or allow more if you can spare it"
        )


def _computed_in(exported, device):
    import ctranslate2

    return ctranslate2.Translator(str(exported), device=device, intra_threads=1).compute_type
