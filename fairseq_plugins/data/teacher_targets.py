"""A teacher's distributions from caches on disk, beside the sentence pairs that they belong to."""

import logging
import math
from pathlib import Path

import numpy as np
import torch
from fairseq import utils

from data_prep.vocabulary import differences
from fairseq_plugins.teachers.cache_format import TeacherCache, data_fingerprint

logger = logging.getLogger(__name__)

KEY = "teacher"  # in a batch


class TeacherTargets:
    """The k most probable pieces at each position of a split's targets, a companion.

    Args:
        split: ``CachedSplit``.
        pad: number of padding in the target dictionary.
    """

    def __init__(self, split, pad):
        self._split, self._pad = split, pad
        self.path = f"{split.path} ({split.name})"

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        return self._split[index]

    def collate(self, items, batch):
        """{"indices": int64, "lprobs": float64}, both (batch, time, k), as ``batch["target"]``.

        float64 because fairseq turns whatever is float32 in a batch to half precision under --fp16
        and --bf16, and a bfloat16 would be off by 3 % of a probability. At padding, on whichever
        side, indices are 0 and lprobs log(1 / (k + 1)).

        Raises:
            ValueError: a sentence has another number of tokens than in the cache.
        """
        real = batch["target"].ne(self._pad)  # (batch, time)
        cached = [len(indices) for indices, _ in items]
        for number, ours, theirs in zip(
            batch["id"].tolist(), real.sum(dim=1).tolist(), cached, strict=True
        ):
            if ours != theirs:
                raise ValueError(
                    f"{self.path} has {theirs} tokens of a sentence (number {number}) that has "
                    f"{ours} in the batch; options that alter targets do not go with a cache"
                )
        shape, k = real.shape, self._split.top_k
        indices = torch.zeros(*shape, k, dtype=torch.long)
        lprobs = torch.full((*shape, k), -math.log(k + 1), dtype=torch.float64)
        # a mask picks positions sentence by sentence and from left to right, as the items are
        indices[real] = torch.from_numpy(np.concatenate([i for i, _ in items]).astype(np.int64))
        lprobs[real] = torch.from_numpy(np.concatenate([p for _, p in items]).astype(np.float64))
        return {"indices": indices, "lprobs": lprobs}


class TeacherCaches:
    """The caches named by --teacher-cache, found by the data that they were made from.

    Args:
        paths: folders, joined by colons, in any order.
        vocabulary: ``Vocabulary`` of the student's data.

    Attributes:
        top_k: log-probabilities at each position, the same in all.
        temperature: of the teacher's distributions, the same in all.

    Raises:
        FileNotFoundError: a cache is missing or lacks a file.
        ValueError: a cache is damaged, has another vocabulary, or two do not go together.
    """

    def __init__(self, paths, vocabulary):
        self._vocabulary = vocabulary
        self._caches = [TeacherCache(path) for path in utils.split_paths(paths)]
        self._used = set()
        first, *others = self._caches
        for cache in self._caches:
            differing = differences(vocabulary.files, cache.vocabulary)
            if differing:
                raise ValueError(
                    f"teacher cache {cache.path} was made with another vocabulary than that of "
                    f"{vocabulary.folder}: {', '.join(differing)} differ; make it anew with "
                    f"dad-cache-teacher and a teacher of this vocabulary, or distil by whole "
                    f"sentences (dad-generate), which works across vocabularies"
                )
        for other in others:
            for name in ("top_k", "temperature"):
                if getattr(first, name) != getattr(other, name):
                    raise ValueError(
                        f"{first.path} was made with --{name.replace('_', '-')} "
                        f"{getattr(first, name):g} and {other.path} with "
                        f"{getattr(other, name):g}; the caches of a mixture must have the same"
                    )
        self.top_k, self.temperature = first.top_k, first.temperature

    def targets(self, folder, split, pad, training):
        """``TeacherTargets`` of a split of a prepared folder.

        Args:
            folder, split: what is to be found, by what the files hold and not by their place.
            pad: number of padding in the target dictionary.
            training: whether it is training data. If not, a split without a cache is None, with
                a warning, and of two teachers for the same text the first is taken.

        Raises:
            ValueError: no cache was made from this training data, or several by different
                teachers.
        """
        languages = self._vocabulary.source_lang, self._vocabulary.target_lang
        wanted = data_fingerprint(folder, split, *languages)
        found = [cache for cache in self._caches if cache.data(split) == wanted]
        if not found:
            message = self._nothing_for(folder, split, wanted)
            if training:
                raise ValueError(message)
            logger.warning(message)
            return None
        self._used.update(cache.path for cache in found)
        if training and len({tuple(cache.teachers) for cache in found}) > 1:
            raise ValueError(
                f"--teacher-cache names {' and '.join(str(cache.path) for cache in found)}, "
                f"which hold different teachers' distributions for the {split} split of {folder}; "
                f"leave one of them out"
            )
        logger.info(f"{folder}: distributions of the teacher for {split} from {found[0].path}")
        return TeacherTargets(found[0].split(split), pad)

    def check_all_used(self):
        """Refuse a cache that belongs to nothing that was loaded; call it when all is.

        Raises:
            ValueError: names it.
        """
        for cache in self._caches:
            if cache.path not in self._used:
                raise ValueError(
                    f"teacher cache {cache.path} was made from other data than this training "
                    f"reads; leave it out of --teacher-cache"
                )

    def _nothing_for(self, folder, split, wanted):
        other = "".join(
            f"; {cache.path} was made from other data ({', '.join(differing)} differ)"
            for cache in self._caches
            if cache.data(split) and (differing := differences(wanted, cache.data(split)))
        )
        name = Path(folder).resolve()
        return (
            f"no cache of --teacher-cache has the teacher's distributions for the {split} split of "
            f"{folder}{other}. Make one with: dad-cache-teacher --teacher MODEL --data {name} "
            f"--splits train,valid --top-k {self.top_k} --temperature {self.temperature:g} "
            f"--out CACHE, and add it to --teacher-cache"
        )
