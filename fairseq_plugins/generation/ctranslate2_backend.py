"""Decoding through CTranslate2: a single transformer, fast on CPU and GPU."""

import ctranslate2

from data_prep.manifest import manifest_path, read_json

DEFAULT_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
FAIRSEQ_POSITIONS = 1024  # fairseq's default, for models exported by others


class CTranslate2Backend:
    """Decodes piece lists with an exported model.

    Args:
        folder: EXPORTED folder.
        decoding: ``Decoding``.
        device: "cpu" or "cuda".
        compute_type: CTranslate2's name, or "default": what the model was saved with.
        workers: batches decoded at the same time.
        threads: threads for each of them (CPU).
    """

    def __init__(self, folder, decoding, *, device, compute_type, workers, threads):
        try:
            self._translator = ctranslate2.Translator(
                str(folder), device=device, compute_type=compute_type,
                inter_threads=workers, intra_threads=threads,
                max_queued_batches=-1,  # a shard's batches are few; never block on submitting
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"CTranslate2 cannot load {folder} on {device}: {error}") from None
        self._decoding = decoding
        positions = positions_of(folder)
        self.source_positions = positions["source"]
        self._target_positions = positions["target"]

    def submit(self, sentences):
        """Start on a list of piece lists; returns the function that waits for them.

        That function takes ``advance``, called with a number whenever so many more
        sentences are done, and returns the translations, piece lists in the order given.
        """
        started = []
        for batch in self._decoding.batches(sentences):
            chosen = [sentences[index] for index in batch]
            results = self._translator.translate_batch(
                chosen,
                asynchronous=True,
                beam_size=self._decoding.beam,
                length_penalty=self._decoding.length_penalty,
                max_input_length=0,  # by default it cuts what is longer, silently
                max_decoding_length=self._decoding.length_limit(
                    len(chosen[0]), self._target_positions
                ),
                disable_unk=True,
                suppress_sequences=[["<blank>"], ["<s>"]],
            )
            started.append((batch, results))
        return lambda advance: self._collect(len(sentences), started, advance)

    def _collect(self, number, started, advance):
        translations = [None] * number
        for batch, results in started:
            for index, result in zip(batch, results, strict=True):
                translations[index] = _result(result).hypotheses[0]
            advance(len(batch))
        return translations


def positions_of(folder):
    """Most pieces that an exported model can read and write, end of sentence included."""
    unknown = {"source": FAIRSEQ_POSITIONS, "target": FAIRSEQ_POSITIONS}
    if not manifest_path(folder).exists():
        return unknown
    return read_json(manifest_path(folder)).get("settings", {}).get("positions", unknown)


def gpu_count():
    """Number of GPUs that CTranslate2 can see."""
    return ctranslate2.get_cuda_device_count()


def _result(pending):
    try:
        return pending.result()
    except RuntimeError as error:
        raise ValueError(
            f"CTranslate2 stopped: {error}; a smaller --batch-tokens needs less memory"
        ) from None
