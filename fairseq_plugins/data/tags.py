"""Domain tags: a word before the source that tells the model which domain a sentence is of.

"Domain control" (Kobus et al. 2017, https://arxiv.org/abs/1612.06140). The word is encoded by
the run's own subwords, so the vocabulary stays as it is, and whoever puts the word before a
line of text gets the same pieces when the model is used.
"""

from itertools import islice

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset

CHECKED_LINES = 1000
# two ways to cut a word can have the same score but for rounding, which depends on what stands
# before: one line in 30,000 of German text with 3,000 pieces
TOLERATED = 0.01


def parse_tags(text):
    """{folder: tag} from ``FOLDER=TAG,FOLDER=TAG``.

    Raises:
        ValueError: a tag is not one word, or a folder is named twice.
    """
    tags = {}
    for item in text.split(","):
        folder, _, tag = item.strip().rpartition("=")
        if not folder or len(tag.split()) != 1:
            raise ValueError(
                f"--domain-tags takes FOLDER=TAG,FOLDER=TAG with one word as a tag, such as "
                f"'corpora/medical=<medical>', not {item!r}"
            )
        if folder in tags:
            raise ValueError(f"--domain-tags names {folder} twice")
        tags[folder] = tag
    return tags


def check_tag(tag, subwords, lines):
    """Refuse a tag that changes how the text behind it is cut into pieces.

    Args:
        tag: the word.
        subwords: the run's ``Subwords``.
        lines: iterable of source lines to try it on, the first thousand.

    Raises:
        ValueError: names tag and line.
    """
    pieces = subwords.encode(tag)
    tried = list(islice(lines, CHECKED_LINES))
    altered = [
        line for line in tried if subwords.encode(f"{tag} {line}") != pieces + subwords.encode(line)
    ]
    if len(altered) > TOLERATED * len(tried):
        raise ValueError(
            f"--domain-tags: with {tag} before it, {altered[0]!r} is cut into other pieces than "
            f"without, like {len(altered):,} of {len(tried):,} lines, so training and decoding "
            "would not agree; this subword model lets pieces cross spaces, or truecasing takes the "
            "tag for the first word: learn one with python -m data_prep.vocabulary, without "
            "--truecase"
        )


class TaggedSources(BaseWrapperDataset):
    """Source sentences, each behind the same tag.

    Args:
        sources: dataset of token tensors with ``sizes``.
        tag: ids of the tag's pieces.
    """

    def __init__(self, sources, tag):
        super().__init__(sources)
        self._tag = torch.tensor(tag)

    def __getitem__(self, index):
        return torch.cat([self._tag, self.dataset[index]])

    @property
    def sizes(self):
        return np.asarray(self.dataset.sizes) + len(self._tag)

    def size(self, index):
        return self.dataset.size(index) + len(self._tag)

    def num_tokens(self, index):
        return self.dataset.num_tokens(index) + len(self._tag)


def put_before_sources(pairs, tag):
    """Give every source of a ``LanguagePairDataset`` the tag, and the dataset its new sizes."""
    pairs.src = TaggedSources(pairs.src, tag)
    pairs.src_sizes = pairs.src.sizes
    sides = (pairs.src_sizes,) if pairs.tgt_sizes is None else (pairs.src_sizes, pairs.tgt_sizes)
    pairs.sizes = np.vstack(sides).T if len(sides) == 2 else sides[0]
