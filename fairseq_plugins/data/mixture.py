"""Several bitexts as one training set: weights, resampling by epoch, epochs in slices."""

import numpy as np
from fairseq.data import BaseWrapperDataset, ConcatDataset, data_utils


def parse_mixture(text):
    """[(folder, weight), ...] from ``FOLDER=WEIGHT,FOLDER=WEIGHT``; a missing weight is 1.

    Raises:
        ValueError: a weight is not a positive number, or a folder is empty.
    """
    parts = []
    for item in text.split(","):
        folder, _, weight = item.strip().rpartition("=") if "=" in item else (item.strip(), "", "1")
        try:
            number = float(weight)
        except ValueError:
            number = 0.0
        if not folder or not 0 < number < float("inf"):
            raise ValueError(
                f"--mixture takes FOLDER=WEIGHT,FOLDER=WEIGHT with weights above 0, not {item!r}"
            )
        parts.append((folder, number))
    return parts


def slices_per_pass(epoch_fraction):
    """Number of fairseq epochs that make one pass over the data.

    Raises:
        ValueError: the fraction is not 1/n for a whole n.
    """
    slices = round(1 / epoch_fraction) if epoch_fraction > 0 else 0
    if slices < 1 or abs(slices * epoch_fraction - 1) > 0.02:
        raise ValueError(
            f"--epoch-fraction is one pass over the data divided by a whole number "
            f"(1, 0.5, 0.25, 0.2, 0.1 ...), not {epoch_fraction}"
        )
    return slices


class MixtureDataset(BaseWrapperDataset):
    """Sentence pairs of several bitexts, drawn anew for every pass over the data.

    A bitext of weight w appears w times in a pass; of a weight that is not
    whole, the fraction is a sample without replacement, another one in each
    pass. A pass is shuffled and cut into ``slices`` fairseq epochs, so that
    validation, checkpoints and patience come several times per pass. What an
    epoch holds depends on (seed, epoch) only, never on what was run before.

    Args:
        datasets: list of ``LanguagePairDataset``.
        weights: list of numbers above 0, one for each dataset.
        slices: number of fairseq epochs in a pass.
        seed: random seed.
    """

    can_reuse_epoch_itr_across_epochs = False  # every epoch holds other pairs

    def __init__(self, datasets, weights, slices=1, seed=1):
        super().__init__(ConcatDataset(datasets))
        self._lengths = [len(dataset) for dataset in datasets]
        self._weights = list(weights)
        self._slices = slices
        self._seed = seed
        self._all_sizes = self.dataset.sizes  # (pairs, 2): source and target length
        self.set_epoch(1)

    def set_epoch(self, epoch):
        """Draw the pairs of fairseq epoch ``epoch`` (from 1)."""
        super().set_epoch(epoch)
        passed, slice_index = divmod(epoch - 1, self._slices)
        drawn, first = [], 0
        for number, (length, weight) in enumerate(zip(self._lengths, self._weights)):
            rng = np.random.default_rng([self._seed, passed, number])
            copies, fraction = divmod(weight, 1)
            part = rng.permutation(length)[: round(fraction * length)]
            drawn += [np.tile(np.arange(length), int(copies)) + first, np.sort(part) + first]
            first += length
        everything = np.concatenate(drawn)
        if self._slices > 1:
            np.random.default_rng([self._seed, passed]).shuffle(everything)
        self._picked = np.array_split(everything, self._slices)[slice_index]
        if len(self._picked) == 0:
            raise ValueError(
                f"epoch {epoch} would be empty: {len(everything):,} sentence pairs cannot be cut "
                f"into {self._slices} parts; raise --epoch-fraction"
            )

    def __len__(self):
        return len(self._picked)

    def __getitem__(self, index):
        return {**self.dataset[int(self._picked[index])], "id": index}

    @property
    def sizes(self):
        return self._all_sizes[self._picked]

    def size(self, index):
        return tuple(self._all_sizes[self._picked[index]])

    def num_tokens(self, index):
        return int(self._all_sizes[self._picked[index]].max())

    def num_tokens_vec(self, indices):
        return self.sizes[indices].max(axis=1).astype(np.int64)  # what fairseq's C code takes

    def ordered_indices(self):
        """Indices by source length, then target length; ties in random order."""
        order = np.random.permutation(len(self))  # fairseq seeds numpy by epoch around this call
        src_lengths, tgt_lengths = self.sizes[order].T
        return order[np.lexsort((tgt_lengths, src_lengths))]

    def filter_indices_by_size(self, indices, max_sizes):
        src_lengths, tgt_lengths = self.sizes.T
        return data_utils.filter_paired_dataset_indices_by_size(
            src_lengths, tgt_lengths, indices, max_sizes
        )

    def batch_by_size(
        self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1
    ):
        return data_utils.batch_by_size(
            indices,
            num_tokens_fn=self.num_tokens,
            num_tokens_vec=self.num_tokens_vec(indices),
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            required_batch_size_multiple=required_batch_size_multiple,
        )

    @property
    def supports_prefetch(self):
        return False  # memory-mapped bitext needs none
