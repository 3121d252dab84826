"""Decoding through CTranslate2: a single transformer, fast on CPU and GPU."""

import copy

import ctranslate2

from data_prep.manifest import manifest_path, read_json
from fairseq_plugins.generation.decoding import Decoding, DecodingFailed, Hypothesis

DEFAULT_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
FAIRSEQ_POSITIONS = 1024  # fairseq's default, for models exported by others


class CTranslate2Backend:
    """Decodes batches of piece lists with an exported model.

    Args:
        folder: EXPORTED folder.
        decoding: ``Decoding``.
        device: "cpu" or "cuda".
        compute_type: CTranslate2's name, or "default": what the model was saved with.
        workers: batches decoded at the same time; on GPUs, as many of them.
        threads: threads for each of them (CPU).
        positions: most pieces that it can read and write; None: what its manifest says.
        target_prefix: pieces that every translation begins with, a language code for example.
        suppressed: pieces that are never generated; all must be in the vocabulary.
    """

    def __init__(self, folder, decoding, *, device, compute_type, workers, threads,
                 positions=None, target_prefix=(), suppressed=("<blank>", "<s>")):  # fmt: skip
        self._folder, self._decoding = folder, decoding
        self._loading = {"device": device, "compute_type": compute_type, "intra_threads": threads}
        if device == "cuda":
            self._loading["device_index"] = list(range(workers))
        self._workers = workers if device == "cpu" else 1  # for each GPU
        positions = positions or positions_of(folder)
        self.source_positions = positions["source"]
        self._target_positions = positions["target"]
        self._target_prefix = list(target_prefix)
        self._suppressed = [[piece] for piece in suppressed]
        self._shortlist = has_shortlist(folder)
        # samples are drawn by translators of their own, see session
        self._translator = None if decoding.sampling else self._load(self._workers)

    def searching(self, decoding):
        """The same model, loaded once, with another ``Decoding``, which must not be sampling."""
        other = copy.copy(self)
        other._decoding = decoding
        return other

    def session(self, seed):
        """Where the batches of a shard go, in turn: an object with ``begin``.

        CTranslate2 draws from one generator per thread, which it seeds when the thread first
        draws. So a shard that is sampled has a translator with a single thread to itself;
        with any other arrangement equal seeds would not give equal samples.
        """
        if self._decoding.sampling is None:
            return _Session(self, self._translator)
        ctranslate2.set_random_seed(seed)
        translator = self._load(1)
        # the thread takes the seed now, before that of another shard is set; a source without
        # any piece would be skipped
        self.begin(translator, [["<unk>"]])()
        return _Session(self, translator)

    def first_piece(self, sentence):
        """The first piece of the greedy translation of a piece list; no other is computed."""
        session = self.searching(Decoding(beam=1, max_length=1)).session(seed=0)
        ((hypothesis,),) = session.begin([sentence])()
        return hypothesis.pieces[-1]  # after what is forced

    @property
    def compute_type(self):
        """CTranslate2's name of the arithmetic that it took for "default"."""
        return self._translator.compute_type

    def begin(self, translator, sentences):
        """Start on a batch of piece lists, the longest first; returns the function that waits.

        That function returns a list of ``Hypothesis`` for each sentence, best first.

        Raises (it, too):
            DecodingFailed: CTranslate2 gave up.
        """
        limit = self._decoding.length_limit(len(sentences[0]), self._target_positions)
        limit += len(self._target_prefix)  # it counts as generated
        prefix = [self._target_prefix] * len(sentences) if self._target_prefix else None
        try:
            pending = translator.translate_batch(
                sentences,
                prefix,
                asynchronous=True,
                **self._search(),
                num_hypotheses=self._decoding.n_best,
                return_scores=True,
                max_input_length=0,  # by default it cuts what is longer, silently
                max_decoding_length=limit,
                disable_unk=True,
                suppress_sequences=self._suppressed,
                use_vmap=self._shortlist,
            )
        except (RuntimeError, ValueError) as error:
            raise DecodingFailed(str(error)) from None
        return lambda: [self._hypotheses(_result(result), limit) for result in pending]

    def _search(self):
        sampling = self._decoding.sampling
        if sampling is None:
            return {
                "beam_size": self._decoding.beam,
                "length_penalty": self._decoding.length_penalty,
            }
        return {
            "beam_size": 1,
            "length_penalty": 1.0,
            "sampling_topk": sampling.top_k,
            "sampling_topp": sampling.top_p,
            "sampling_temperature": sampling.temperature,
        }

    def _hypotheses(self, result, limit):
        penalty = 1.0 if self._decoding.sampling else self._decoding.length_penalty
        hypotheses = []
        for pieces, score in zip(result.hypotheses, result.scores, strict=True):
            length = len(pieces) + (len(pieces) < limit)  # without its end where it was cut off
            hypotheses.append(Hypothesis(pieces, score * length**penalty, length))
        return hypotheses

    def _load(self, workers):
        try:
            return ctranslate2.Translator(
                str(self._folder), inter_threads=workers, **self._loading,
                max_queued_batches=-1,  # we count what is under way; never block on submitting
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"CTranslate2 cannot load {self._folder} on {self._loading['device']}: {error}"
            ) from None


class _Session:
    def __init__(self, backend, translator):
        self._backend, self._translator = backend, translator

    def begin(self, sentences):
        return self._backend.begin(self._translator, sentences)


def positions_of(folder):
    """Most pieces that an exported model can read and write, end of sentence included."""
    unknown = {"source": FAIRSEQ_POSITIONS, "target": FAIRSEQ_POSITIONS}
    return _settings(folder).get("positions", unknown)


def has_shortlist(folder):
    """Whether a folder was exported with a shortlist: then it is translated with it."""
    return bool(_settings(folder).get("shortlist"))


def _settings(folder):
    if not manifest_path(folder).exists():
        return {}
    return read_json(manifest_path(folder)).get("settings", {})


def gpu_count():
    """Number of GPUs that CTranslate2 can see."""
    return ctranslate2.get_cuda_device_count()


def compute_types(device):
    """CTranslate2's names of the arithmetic that this machine's ``device`` supports, a set."""
    return ctranslate2.get_supported_compute_types(device)


def _result(pending):
    try:
        return pending.result()
    except RuntimeError as error:
        raise DecodingFailed(str(error)) from None
