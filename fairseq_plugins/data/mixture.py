"""Several bitexts as one training set: weights, resampling by epoch, epochs in slices."""

import math
import re

import numpy as np
from fairseq.data import BaseWrapperDataset, ConcatDataset, data_utils


def parse_mixture(text):
    """[(folder, weight), ...] from ``FOLDER=WEIGHT,FOLDER=WEIGHT``; a missing weight is 1.

    Raises:
        ValueError: a weight is not a positive number, or a folder is empty.
    """
    parts = []
    for item in text.split(","):
        folder, number = _folder_and_number(item, "1")
        if not folder or not 0 < number < math.inf:
            raise ValueError(
                f"--mixture takes FOLDER=WEIGHT,FOLDER=WEIGHT with weights above 0, not {item!r}"
            )
        parts.append((folder, number))
    return parts


def parse_replay(text):
    """[(folder, share), ...] from ``FOLDER=SHARE,FOLDER=SHARE``.

    Raises:
        ValueError: a share is not between 0 and 1, or together they leave nothing for the domain.
    """
    parts = []
    for item in text.split(","):
        folder, share = _folder_and_number(item, "0")
        if not folder or not 0 < share < 1:
            raise ValueError(
                f"--replay takes FOLDER=SHARE with a share of every pass between 0 and 1 "
                f"(0.25: a quarter of the pairs are general), not {item!r}"
            )
        parts.append((folder, share))
    if not sum(share for _, share in parts) < 1:
        raise ValueError(f"--replay {text}: the shares leave nothing for the domain itself")
    return parts


def parse_domains(text):
    """{name: folder} from ``NAME=FOLDER,NAME=FOLDER``.

    Raises:
        ValueError: a name is no word of letters, digits and underscores, or is given twice.
    """
    domains = {}
    for item in text.split(","):
        name, _, folder = item.strip().partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_]+", name) or not folder:
            raise ValueError(
                f"--valid-domains takes NAME=FOLDER,NAME=FOLDER with names of letters, digits and "
                f"underscores, not {item!r}"
            )
        if name in domains:
            raise ValueError(f"--valid-domains names {name} twice")
        domains[name] = folder
    return domains


def _folder_and_number(item, missing):
    folder, _, number = item.strip().rpartition("=") if "=" in item else (item.strip(), "", missing)
    try:
        return folder, float(number)
    except ValueError:
        return folder, math.nan


def tempered(weights, lengths, temperature):
    """Weights of a mixture at a sampling temperature: w_i · (n_max / n_i)^(1 − 1/T).

    T = 1 changes nothing, T → ∞ shows all bitexts of weight 1 equally often. Only upsampling,
    so no bitext loses pairs; the shares are those of Arivazhagan et al. 2019
    (https://arxiv.org/abs/1907.05019), p_i ∝ n_i^(1/T).

    Args:
        weights, lengths: of the bitexts: times a pass shows it, number of its pairs.
        temperature: 1 or more.

    Raises:
        ValueError: the temperature is below 1.
    """
    if not temperature >= 1:
        raise ValueError(
            f"--mixture-temperature is 1 (as the weights say) or more, not {temperature}"
        )
    longest = max(lengths)
    power = 1 - 1 / temperature
    return [
        weight * (longest / length) ** power
        for weight, length in zip(weights, lengths, strict=True)
    ]


def replay_weights(pairs, lengths, shares):
    """Weight of each replayed bitext, so that its pairs are its share of a pass.

    Args:
        pairs: number of the domain's own pairs in a pass.
        lengths, shares: of the replayed bitexts: number of pairs, share of the pass.

    Raises:
        ValueError: a share is less than one pair.
    """
    everything = pairs / (1 - sum(shares))
    for length, share in zip(lengths, shares, strict=True):
        if round(everything * share) < 1:
            raise ValueError(
                f"--replay: a share of {share:g} of a pass of {everything:,.0f} pairs is less "
                "than one pair; raise it"
            )
    return [everything * share / length for length, share in zip(lengths, shares, strict=True)]


def pairs_in_pass(weights, lengths):
    """Number of pairs that a pass shows of each bitext, a list."""
    shown = []
    for weight, length in zip(weights, lengths, strict=True):
        copies, fraction = divmod(weight, 1)
        shown.append(int(copies) * length + round(fraction * length))
    return shown


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
        self._ends = np.cumsum(self._lengths)
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

    def bitext_of(self, index):
        """Number of the bitext, from 0, that a pair of this epoch comes from."""
        return int(np.searchsorted(self._ends, self._picked[index], side="right"))

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
