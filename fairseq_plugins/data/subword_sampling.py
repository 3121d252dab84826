"""Subword regularisation on the fly: sources of the training set cut into other pieces each time.

Unigram models sample among all ways to cut a word (Kudo 2018, https://arxiv.org/abs/1804.10959,
with l = infinity), BPE models leave out merges (Provilkov et al. 2020,
https://arxiv.org/abs/1910.13267). SentencePiece can do both, but what its 0.2.3 draws from a
seed differs from process to process, so a run could not be resumed with the same losses, and
subword-nmt draws from the generator that all of Python shares; the drawing is done here, from the
scores in the model or the codes.
"""

import itertools
import math
import random
from bisect import bisect_right

import torch
from fairseq.data import BaseWrapperDataset

from data_prep.subwords import RESERVED, SEPARATOR, WORD_END, WORD_START, PairCodes

CACHED_WORDS = 200_000


class PieceSampler:
    """Cuts pieces anew at random, word by word.

    Pieces without a score (bytes, unknown ones) stay where they are and part words, so
    the new pieces always spell the text of the old ones.

    Args:
        scores: {piece: score}, ``SentencePieces.scores()``.
        alpha: unigram model: power by which the probability of each way to cut a word is raised;
            1 draws by the model, less is wilder. BPE model: share of merges left out, 0 to 1.
    """

    def __init__(self, scores, alpha):
        self._scores, self._alpha = scores, alpha
        self._longest = max(map(len, scores))
        # the score of a BPE piece is minus its rank; log-probabilities are never all whole
        merges = all(score == int(score) for score in scores.values())
        self._cut = self._merge if merges else self._draw
        self._ways = {}  # of the words seen so far

    def sample(self, pieces, chance):
        """The text of ``pieces`` in new pieces, a list.

        Args:
            pieces: list of str.
            chance: ``random.Random``.
        """
        sampled, word = [], []
        for piece in pieces:
            if word and (piece not in self._scores or piece.startswith(WORD_START)):
                sampled += self._cut(word, chance)
                word = []
            if piece in self._scores:
                word.append(piece)
            else:
                sampled.append(piece)
        return sampled + self._cut(word, chance) if word else sampled

    def _draw(self, word, chance):
        """Forward filtering, backward sampling: from the end to the start of the word."""
        text = "".join(word)
        if text not in self._ways:
            if len(self._ways) == CACHED_WORDS:
                self._ways.clear()
            self._ways[text] = self._ways_to_cut(text)
        ways, end, pieces = self._ways[text], len(text), []
        while end:
            starts, sums = ways[end]
            start = starts[bisect_right(sums, chance.random() * sums[-1], hi=len(sums) - 1)]
            pieces.append(text[start:end])
            end = start
        return pieces[::-1]

    def _ways_to_cut(self, text):
        """For each place in a word: where its last piece may begin, and the running sums of
        the probabilities of that."""
        totals = [0.0]  # log of the summed weight of all ways to cut the text up to here
        ways = [None]
        for end in range(1, len(text) + 1):
            found = [
                (start, totals[start] + self._alpha * self._scores[text[start:end]])
                for start in range(max(0, end - self._longest), end)
                if text[start:end] in self._scores and totals[start] > -math.inf
            ]
            highest = max((weight for _, weight in found), default=-math.inf)
            sums = list(itertools.accumulate(math.exp(w - highest) for _, w in found))
            totals.append(highest + math.log(sums[-1]) if found else -math.inf)
            ways.append(([start for start, _ in found], sums))
        return ways

    def _merge(self, word, chance):
        """BPE, in which every merge that could be made is left out by chance, at each step."""
        symbols = list("".join(word))
        while True:
            merges = [
                (self._scores[left + right], -place)
                for place, (left, right) in enumerate(zip(symbols, symbols[1:]))
                if left + right in self._scores and chance.random() >= self._alpha
            ]
            if not merges:
                break
            place = -max(merges)[1]
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        # a character may have no piece of its own
        return symbols if all(symbol in self._scores for symbol in symbols) else word


class PairSampler:
    """BPE-dropout with the codes of subword-nmt, word by word; the same interface.

    Args:
        codes: ``PairCodes``.
        alpha: share of merges left out, 0 to 1.
        known: the pieces that may come, any container.
    """

    def __init__(self, codes, alpha, known):
        self._codes, self._alpha, self._known = codes, alpha, known

    def sample(self, pieces, chance):
        sampled, word = [], []
        for piece in pieces:
            word.append(piece)
            if not piece.endswith(SEPARATOR):
                sampled += self._cut(word, chance)
                word = []
        return sampled + word  # a line that was cut off inside a word ends as it did

    def _cut(self, word, chance):
        """Every merge that could be made is left out by chance, at each step."""
        if not RESERVED.isdisjoint(word):
            return word  # unknown pieces stay where they are
        text = "".join(piece.removesuffix(SEPARATOR) for piece in word)
        symbols, ranks = [*text[:-1], text[-1] + WORD_END], self._codes.ranks
        while True:
            merges = [
                (ranks[pair], place)
                for place, pair in enumerate(zip(symbols, symbols[1:]))
                if pair in ranks and chance.random() >= self._alpha
            ]
            if not merges:
                break
            first = min(merges)[0]
            merged, places = [], {place for rank, place in merges if rank == first}
            place = 0
            while place < len(symbols):
                # subword-nmt makes a merge wherever it can before it looks for the next
                width = 2 if place in places else 1
                merged.append("".join(symbols[place : place + width]))
                place += width
            symbols = merged
        cut = self._codes.finish(symbols)
        # a character may be missing from the dictionary of a model made elsewhere
        return cut if all(piece in self._known for piece in cut) else word


def piece_sampler(subwords, alpha, known):
    """What cuts pieces of a ``Subwords`` anew at random: has ``sample(pieces, chance)``.

    Args:
        subwords: of the language whose lines are cut.
        alpha: as for ``PieceSampler`` and ``PairSampler``.
        known: the pieces that may come, such as a dictionary.
    """
    plain = subwords.plain
    if plain.kind == PairCodes.kind:
        return PairSampler(plain, alpha, known)
    scores = plain.scores()
    return PieceSampler({p: score for p, score in scores.items() if p in known}, alpha)


class SampledSources(BaseWrapperDataset):
    """A mixture whose sources are cut into pieces at random, anew in every epoch.

    What a sentence becomes depends on (seed, epoch, place in the epoch) only, so a run that is
    resumed in the middle of an epoch sees what it would have seen. A sentence stays as it was
    prepared if its new pieces would be more than ``longest``. Sizes, by which batches are made,
    are those of the prepared pieces.

    Args:
        mixture: ``MixtureDataset``.
        sampler: what ``piece_sampler`` returns.
        dictionary: fairseq's source dictionary.
        seed: random seed.
        longest: most tokens of a source, end of sentence included.
        tag_lengths: number of pieces before the text, which stay, for each bitext of the mixture.
    """

    can_reuse_epoch_itr_across_epochs = False  # every epoch holds other pieces

    def __init__(self, mixture, sampler, dictionary, seed, longest, tag_lengths):
        super().__init__(mixture)
        self._sampler, self._dictionary = sampler, dictionary
        self._seed, self._longest = seed, longest
        self._tag_lengths = tag_lengths
        self._epoch = 1

    def set_epoch(self, epoch):
        super().set_epoch(epoch)
        self._epoch = epoch

    def __getitem__(self, index):
        item = self.dataset[index]
        *ids, end = item["source"].tolist()
        tag = self._tag_lengths[self.dataset.bitext_of(index)]
        chance = random.Random(f"{self._seed} {self._epoch} {index}")
        pieces = self._sampler.sample([self._dictionary[i] for i in ids[tag:]], chance)
        if tag + len(pieces) + 1 > self._longest:
            return item
        source = [*ids[:tag], *(self._dictionary.index(piece) for piece in pieces), end]
        return {**item, "source": torch.tensor(source)}
