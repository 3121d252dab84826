"""Paired bootstrap of two systems on one test set, sacreBLEU's."""

import logging

from sacrebleu.significance import PairedTest

from data_prep.files import read_lines
from fairseq_plugins.evaluation.metrics import build_metric

RESAMPLES = 1000

logging.getLogger("sacrebleu").setLevel(logging.WARNING)  # it tells every step of the test


def compare(new, old, references, tgt_lang):
    """What system ``new`` gains over ``old`` in BLEU, and how likely that is chance.

    Args:
        new, old: files of translations of the same test set.
        references: file of untouched references.
        tgt_lang: language code of the text.

    Returns:
        {"difference": BLEU points, "p_value": of the paired bootstrap (Koehn 2004),
        "signature": str}.

    Raises:
        ValueError: the files have different numbers of lines.
    """
    lines = {path: list(read_lines(path)) for path in (old, new, references)}
    if len({len(entry) for entry in lines.values()}) != 1:
        found = ", ".join(f"{path} {len(entry):,}" for path, entry in lines.items())
        raise ValueError(f"systems and references differ in their number of lines: {found}")
    test = PairedTest(
        [("old", lines[old]), ("new", lines[new])],
        {"BLEU": build_metric("bleu", tgt_lang)},
        [lines[references]],
        test_type="bs",
        n_samples=RESAMPLES,
    )
    signatures, scores = test()
    before, after = scores["BLEU"]
    # sacreBLEU counts differences above that observed, so none at all would look significant
    p_value = 1.0 if after.score == before.score else float(after.p_value)
    return {
        "difference": round(after.score - before.score, 2),
        "p_value": round(p_value, 4),
        "signature": str(signatures["BLEU"]),
    }
