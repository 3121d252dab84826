"""Subword regularisation on the fly: sources of the training set cut into other pieces each time.

Unigram models sample among all ways to cut a sentence (Kudo 2018, https://arxiv.org/abs/1804.10959),
BPE models leave out merges (Provilkov et al. 2020, https://arxiv.org/abs/1910.13267). A prepared
folder holds pieces only, so they are joined to text and cut anew.
"""

import logging

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset

logger = logging.getLogger(__name__)

CHECKED_PAIRS = 10_000
NO_SEED = 2**32 - 1  # SentencePiece takes this one for "no seed was set"


class SampledSources(BaseWrapperDataset):
    """A mixture whose sources are cut into pieces at random, anew in every epoch.

    What a sentence becomes depends on (seed, epoch, place in the epoch) only, so a run that is
    resumed in the middle of an epoch sees what it would have seen. A sentence stays as it was
    prepared if its pieces cannot be had back from its text, or if its new pieces are more than
    ``longest``. Sizes, by which batches are made, are those of the prepared pieces.

    Args:
        mixture: ``MixtureDataset``.
        subwords: ``Subwords`` of the run.
        dictionary: fairseq's source dictionary.
        alpha: of a unigram model, how much the likelier ways are preferred (above 0, small is
            wild); of a BPE model, the share of merges left out. At most 1.
        seed: random seed.
        longest: most tokens of a source, end of sentence included.
        tag_lengths: number of pieces before the text, which stay, for each bitext of the mixture.
    """

    can_reuse_epoch_itr_across_epochs = False  # every epoch holds other pieces

    def __init__(self, mixture, subwords, dictionary, alpha, seed, longest, tag_lengths):
        super().__init__(mixture)
        self._subwords, self._dictionary = subwords, dictionary
        self._alpha, self._seed, self._longest = alpha, seed, longest
        self._tag_lengths = tag_lengths
        self._epoch = 1

    def set_epoch(self, epoch):
        super().set_epoch(epoch)
        self._epoch = epoch

    def __getitem__(self, index):
        item = self.dataset[index]
        tag, body = self._parts(index, item["source"])
        text = self._text(body)
        if text is None:
            return item
        draw = np.random.SeedSequence([self._seed, self._epoch, index]).generate_state(1)[0]
        pieces = self._subwords.sample(text, self._alpha, int(draw) % NO_SEED)
        if len(tag) + len(pieces) + 1 > self._longest:
            return item
        source = [*tag, *(self._dictionary.index(piece) for piece in pieces), item["source"][-1]]
        return {**item, "source": torch.tensor(source)}

    def restorable(self):
        """(checked, restorable) pairs: of how many the prepared pieces can be had back.

        Looks at up to 10,000 pairs, evenly over the epoch.
        """
        chosen = np.linspace(0, len(self) - 1, min(len(self), CHECKED_PAIRS)).astype(int)
        found = 0
        for index in map(int, chosen):
            _, body = self._parts(index, self.dataset[index]["source"])
            found += self._text(body) is not None
        return len(chosen), found

    def _parts(self, index, source):
        """Ids of tag and of text, without the end of sentence."""
        ids = source.tolist()[:-1]
        tag = self._tag_lengths[self.dataset.bitext_of(index)]
        return ids[:tag], ids[tag:]

    def _text(self, ids):
        """The text that these ids are the pieces of, or None if it cannot be had back."""
        text = self._subwords.decode([self._dictionary[number] for number in ids])
        again = [self._dictionary.index(piece) for piece in self._subwords.encode(text)]
        return text if again == ids else None


def with_sampling(mixture, *args):
    """``SampledSources`` of these arguments; says how many sources stay as they were prepared.

    Raises:
        ValueError: that is most of them.
    """
    sampled = SampledSources(mixture, *args)
    checked, found = sampled.restorable()
    logger.info(
        f"--source-sampling: of {checked:,} training sources looked at, {checked - found:,} "
        "cannot be joined to text and cut into the same pieces again; such stay as prepared"
    )
    if 2 * found < checked:
        raise ValueError(
            f"--source-sampling: {checked - found:,} of {checked:,} training sources are not what "
            "the subword model makes of their text, so they cannot be sampled; prepare the folder "
            "anew from text with python -m data_prep.binarise"
        )
    return sampled
