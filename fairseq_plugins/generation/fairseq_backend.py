"""Decoding through fairseq: anything it can load, ensembles too, on CPU or GPU."""

import contextlib
import copy
import functools
import logging
import math
import os

import torch
from fairseq import checkpoint_utils
from fairseq.data import data_utils
from fairseq.search import Sampling as SamplingSearch
from fairseq.sequence_generator import SequenceGenerator

from fairseq_plugins.checkpoints import TRUST_VARIABLE
from fairseq_plugins.generation.decoding import DecodingFailed, Hypothesis

DEFAULT_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}


class FairseqBackend:
    """Decodes piece lists with one fairseq model or an ensemble.

    Args:
        models: list of ``ModelFolder``, all with ``model.pt``.
        decoding: ``Decoding``.
        device: "cpu" or "cuda" (half precision).
        compute_type: "float32" or "float16".
        threads: threads of the arithmetic on the CPU, all together.
        trust: unpickle whatever the checkpoints hold.
    """

    def __init__(self, models, decoding, *, device, compute_type, threads, trust=False):
        if device == "cpu":
            torch.set_num_threads(threads)
        ensemble, task = load_models(models, trust=trust)
        for model in ensemble:
            if compute_type == "float16":
                model.half()
            model.to(device)
        positions = positions_of(ensemble)
        self.source_positions = positions["source"]
        self._target_positions = positions["target"]
        self._source, self._target = task.source_dictionary, task.target_dictionary
        self._ensemble, self._device = ensemble, device
        self._prepare(decoding)

    def _prepare(self, decoding):
        self._decoding = decoding
        self._generator = SequenceGenerator(
            self._ensemble,
            self._target,
            **self._search(),
            unk_penalty=math.inf,  # as CTranslate2's disable_unk
            tokens_to_suppress=(self._target.bos_word,),
        )

    def searching(self, decoding):
        """The same networks, loaded once, with another ``Decoding``."""
        other = copy.copy(self)
        other._prepare(decoding)
        return other

    @torch.inference_mode()
    def first_piece(self, sentence):
        """The first piece of the greedy translation of a piece list; no other is computed.

        fairseq's generator hands out whole translations only, so this is its first step.
        """
        network = self._generator.model
        encoder_outs = network.forward_encoder(self._sample([sentence])["net_input"])
        lprobs, _ = network.forward_decoder(
            torch.tensor([[self._target.eos()]], device=self._device), encoder_outs,
            [{} for _ in self._ensemble],
        )  # fmt: skip
        impossible = [self._target.index(self._target.bos_word), self._target.pad(),
                      self._target.unk(), self._target.eos()]  # fmt: skip
        lprobs[:, impossible] = -math.inf
        return self._target[lprobs.argmax(dim=-1).item()]

    def _search(self):
        sampling = self._decoding.sampling
        if sampling is None:
            return {"beam_size": self._decoding.beam, "len_penalty": self._decoding.length_penalty}
        # fairseq's -1 is "from all"; it looks at top_k only where there is no top_p
        search = SamplingSearch(
            self._target, sampling.top_k or -1, sampling.top_p if sampling.top_p < 1 else -1.0
        )
        return {
            "beam_size": self._decoding.n_best,
            "search_strategy": search,
            "temperature": sampling.temperature,
        }

    def session(self, seed):
        """Where the batches of a shard go, in turn: an object with ``begin``."""
        return _Session(self, seed)

    @torch.inference_mode()
    def decode(self, sentences, seed):
        """A list of ``Hypothesis`` for each of some piece lists, best first.

        Raises:
            DecodingFailed: memory was short.
        """
        # fairseq allows max_len_a * length + max_len_b pieces, so b alone is the limit
        self._generator.max_len_b = self._decoding.length_limit(
            len(sentences[0]), self._target_positions
        )
        torch.manual_seed(seed)
        try:
            decoded = self._generator.generate([], self._sample(sentences))
        except torch.OutOfMemoryError as error:
            raise DecodingFailed(str(error)) from None
        return [
            [self._hypothesis(found) for found in hypotheses[: self._decoding.n_best]]
            for hypotheses in decoded
        ]

    def _hypothesis(self, found):
        ids = found["tokens"].tolist()[:-1]  # the last one is the end of sentence
        log_prob = found["positional_scores"].sum().item()
        return Hypothesis([self._target[number] for number in ids], log_prob, len(ids) + 1)

    def _sample(self, sentences):
        ids = [
            torch.tensor([self._source.index(piece) for piece in pieces] + [self._source.eos()])
            for pieces in sentences
        ]
        src_tokens = data_utils.collate_tokens(
            ids, self._source.pad(), self._source.eos(), left_pad=True
        )  # (batch, time)
        src_lengths = torch.tensor([len(numbers) for numbers in ids])
        return {
            "net_input": {
                "src_tokens": src_tokens.to(self._device),
                "src_lengths": src_lengths.to(self._device),
            }
        }


class _Session:
    def __init__(self, backend, seed):
        self._backend, self._seed = backend, seed

    def begin(self, sentences):
        """Take a batch of piece lists, the longest first; returns the function that decodes it."""
        self._seed += 1  # every batch draws its own samples
        return functools.partial(self._backend.decode, sentences, self._seed)


def load_models(models, trust=False):
    """Networks of an ensemble, in evaluation mode on the CPU, and their fairseq task.

    Args:
        models: list of ``ModelFolder`` with ``model.pt``.
        trust: unpickle whatever the checkpoints hold.
    """
    vocabulary = models[0].vocabulary
    overrides = {
        "data": str(models[0].path),
        "source_lang": vocabulary.source_lang,
        "target_lang": vocabulary.target_lang,
    }
    with quiet(), _trusting(trust):
        ensemble, _, task = checkpoint_utils.load_model_ensemble_and_task(
            [str(model.weights) for model in models], arg_overrides=overrides
        )
    for network in ensemble:
        network.float().eval()
    return ensemble, task


def positions_of(ensemble):
    """Most pieces that every network can read and write, end of sentence included."""
    return {
        "source": int(min(network.max_positions()[0] for network in ensemble)),
        "target": int(min(network.max_positions()[1] for network in ensemble)),
    }


def source_positions(models, trust=False):
    """Most pieces that the ``ModelFolder`` s can read, end of sentence included."""
    ensemble, _ = load_models(models, trust=trust)
    return positions_of(ensemble)["source"]


@contextlib.contextmanager
def quiet():
    """Silence fairseq's notices of dictionaries and datasets; warnings still show."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _trusting(trust):
    """fairseq calls ``torch.load`` itself, so trust can be told to PyTorch only."""
    before = os.environ.get(TRUST_VARIABLE)
    if trust:
        os.environ[TRUST_VARIABLE] = "1"
    try:
        yield
    finally:
        if trust and before is None:
            del os.environ[TRUST_VARIABLE]
        elif trust:
            os.environ[TRUST_VARIABLE] = before
