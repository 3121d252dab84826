"""How likely a model of the other direction finds the source, given the target.

A target that says what the source says lets a reverse model guess the source; one that lost
half of it does not. The scores are CTranslate2's, of a MODEL folder converted for the run or
of an EXPORTED one.
"""

import ctranslate2
import numpy as np

from fairseq_plugins.generation.ctranslate2_backend import gpu_count, positions_of
from fairseq_plugins.generation.models import open_model

BATCH_PIECES = {"cpu": 2048, "cuda": 16384}


def open_reverse_model(path, context):
    """The ``ModelFolder``, checked to translate from our target to our source language.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: it translates between other languages, or is refused.
    """
    model = open_model(path, context.trust, context.allow_unknown_vocabulary)
    src_lang, tgt_lang = context.langs
    vocabulary = model.vocabulary
    if (vocabulary.source_lang, vocabulary.target_lang) != (tgt_lang, src_lang):
        raise ValueError(
            f"{path} translates from {vocabulary.source_lang} to {vocabulary.target_lang}; "
            f"the reverse model must translate from {tgt_lang} to {src_lang}"
        )
    return model


class Scorer:
    """Log-probabilities of sources given targets.

    Args:
        path: MODEL or EXPORTED folder of the other direction.
        context: ``steps.Context``; a MODEL folder is converted in its ``folder``.
    """

    def __init__(self, path, context):
        model = open_reverse_model(path, context)
        folder = model.path
        if not model.exported:
            folder = context.folder / "reverse-model"
            _convert(model, folder, context.trust)
        device = "cuda" if gpu_count() else "cpu"
        self._batch_pieces = BATCH_PIECES[device]
        self._translator = ctranslate2.Translator(
            str(folder), device=device, inter_threads=context.workers, intra_threads=1
        )
        self._read, self._written = map(model.vocabulary.subwords, model.vocabulary.langs)
        positions = positions_of(folder)
        self._limits = positions["source"] - 1, positions["target"] - 1

    def log_probs(self, pairs):
        """Log-probability in nats per piece of each source, end of sentence included.

        Args:
            pairs: list of (our source, our target). What the model has no positions for is
                cut off.

        Returns:
            list of floats; NaN where a side has no text.
        """
        read = self._read.encode_batch([target for _, target in pairs])
        written = self._written.encode_batch([source for source, _ in pairs])
        values = [float("nan")] * len(pairs)
        judged = [index for index in range(len(pairs)) if read[index] and written[index]]
        results = self._translator.score_batch(
            [read[index][: self._limits[0]] for index in judged],
            [written[index][: self._limits[1]] for index in judged],
            max_batch_size=self._batch_pieces, batch_type="tokens", max_input_length=0,
        )  # fmt: skip
        for index, result in zip(judged, results, strict=True):
            values[index] = float(np.mean(result.log_probs))
        return values


def _convert(model, folder, trust):
    from fairseq_plugins.export.conversion import convert

    try:
        convert(model, folder, "float32", trust=trust)
    except ValueError as error:
        reason = str(error).split("; decode it")[0]  # that advice is for dad-generate
        raise ValueError(f"step reverse-model: {reason}; train one that it can represent") from None
