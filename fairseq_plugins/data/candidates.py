"""Candidate translations beside a sentence pair, each with its cost: for ``minimum_risk``.

A candidates folder, written by ``dad-candidates``, belongs to one split of one prepared folder:

  candidates.bin, candidates.idx   token ids of all candidates, end of sentence included, in
                                   fairseq's memory-mapped format
  costs.npy                        cost of each candidate, float32 from 0 to 1
  first.npy                        of each list its first candidate, and one more entry: the end
  lists.npy                        of each sentence of the split its list, or -1: none
  manifest.json                    what made it; the fingerprints of data and vocabulary

Pairs that were made from the same source line share a list.
"""

import abc
import logging
from pathlib import Path

import numpy as np
import torch
from fairseq.data import data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset

from data_prep.binarise import binary_sizes
from data_prep.manifest import read_manifest
from data_prep.vocabulary import differences
from fairseq_plugins.teachers.cache_format import data_fingerprint

logger = logging.getLogger(__name__)

TOKENS, COSTS, FIRST, LISTS = "candidates", "costs.npy", "first.npy", "lists.npy"
FILES = (f"{TOKENS}.bin", f"{TOKENS}.idx", COSTS, FIRST, LISTS)
FEWEST = 2  # with fewer there is nothing to choose between


class CandidatesFolders:
    """The folders named by --candidates, found by the data that they were made for.

    Args:
        paths: list of folders.
        vocabulary: ``Vocabulary`` of the student's data.

    Raises:
        FileNotFoundError: a folder is missing or lacks a file.
        ValueError: a folder is none that dad-candidates made, has another vocabulary, or is for
            the same data as another.
    """

    def __init__(self, paths, vocabulary):
        self._langs = (vocabulary.source_lang, vocabulary.target_lang)
        self._made_for = {Path(path): _settings(Path(path)) for path in paths}
        self._used = set()
        data = []
        for path, settings in self._made_for.items():
            differing = differences(vocabulary.files, settings["vocabulary"])
            if differing:
                raise ValueError(
                    f"candidates {path} were made with another vocabulary than that of "
                    f"{vocabulary.folder}: {', '.join(differing)} differ; make them again with "
                    f"dad-candidates, whose --data is a folder of this run"
                )
            if settings["data"] in data:
                other = list(self._made_for)[data.index(settings["data"])]
                raise ValueError(
                    f"--candidates names two folders for the same sentences, {other} and {path}; "
                    f"keep one of them"
                )
            data.append(settings["data"])

    def beside(self, folder, split, dictionary, left_pad, longest):
        """{"candidates": companion} of a prepared folder's split; {} where there is nothing to put.

        A batch of a mixture is made alike from all of its bitexts, so if there are candidates for
        some training set, each gets a companion.

        Args:
            folder, split: what is to be found, by what the files hold and not by their place.
            dictionary, left_pad, longest: see ``Candidates``.
        """
        of_split = {
            path: made_for
            for path, made_for in self._made_for.items()
            if made_for["split"] == split
        }
        if not of_split:
            return {}
        data = data_fingerprint(folder, split, *self._langs)
        for path, made_for in of_split.items():
            if made_for["data"] == data:
                self._used.add(path)
                logger.info(f"{folder}: candidates for {split} from {path}")
                return {"candidates": Candidates(path, longest, dictionary, left_pad)}
        side = f"{split}.{'-'.join(self._langs)}.{self._langs[0]}"
        sentences = len(binary_sizes(Path(folder) / side))
        logger.info(f"{folder}: no candidates for {split}, it learns from its targets alone")
        return {"candidates": NoCandidates(folder, sentences, dictionary, left_pad)}

    def check_all_used(self):
        """Refuse a folder that belongs to nothing that was loaded; call it when all is.

        Raises:
            ValueError: names it.
        """
        for path, made_for in self._made_for.items():
            if path not in self._used:
                raise ValueError(
                    f"candidates {path} were made for the {made_for['split']} of "
                    f"{made_for['prepared']} as it was then, which this training does not read; "
                    f"leave them out of --candidates, or make them with dad-candidates --data and "
                    f"a folder of this run, anew whenever that is prepared anew"
                )


def _settings(path):
    """Settings in the manifest of a candidates folder."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"--candidates: folder {path} is missing; make it with dad-candidates"
        )
    settings = read_manifest(path).get("settings", {})
    if not {"vocabulary", "split", "data", "prepared"} <= settings.keys():
        raise ValueError(f"{path} is not a folder that dad-candidates made")
    for name in FILES:
        if not (path / name).exists():
            raise FileNotFoundError(f"{path / name} is missing; make {path} again")
    return settings


class _Lists(abc.ABC):
    """Lists of candidates, and what a batch gets of them.

    Args:
        dictionary: of the target language.
        left_pad: pad on the left, as ``--left-pad-target`` does.
    """

    def __init__(self, dictionary, left_pad):
        self._pad, self._eos, self._left_pad = dictionary.pad(), dictionary.eos(), left_pad

    @abc.abstractmethod
    def __getitem__(self, index):
        """(list of LongTensors of token ids, their costs as float64) of a sentence."""

    def collate(self, items, batch):
        """The candidates of a batch.

        Returns a dictionary:
            target: LongTensor (candidates, time), the longest first.
            prev_output_tokens: the same, its end of sentence moved to the beginning.
            left_pad: whether padding is on the left.
            lengths: list of their numbers of tokens.
            slots: list of their places in the next two, were these flat.
            costs: (sentences, most), float64: fairseq would cut float32 short with --fp16.
            missing: (sentences, most), True where a sentence has no further candidate.
        """
        most = max(len(tokens) for tokens, _ in items)
        costs = np.zeros((len(items), most))
        missing = np.ones((len(items), most), dtype=bool)
        rows = []
        for sentence, (tokens, their_costs) in enumerate(items):
            costs[sentence, : len(tokens)] = their_costs
            missing[sentence, : len(tokens)] = False
            rows += [(row, sentence * most + rank) for rank, row in enumerate(tokens)]
        rows.sort(key=lambda row: -len(row[0]))
        return {
            "target": self._merge(rows, move_eos_to_beginning=False),
            "prev_output_tokens": self._merge(rows, move_eos_to_beginning=True),
            "left_pad": self._left_pad,
            "lengths": [len(tokens) for tokens, _ in rows],
            "slots": [slot for _, slot in rows],
            "costs": torch.from_numpy(costs),
            "missing": torch.from_numpy(missing),
        }

    def _merge(self, rows, move_eos_to_beginning):
        if not rows:
            return torch.zeros(0, 0, dtype=torch.long)
        return data_utils.collate_tokens(
            [tokens for tokens, _ in rows], self._pad, self._eos, self._left_pad,
            move_eos_to_beginning,
        )  # fmt: skip


class Candidates(_Lists):
    """The lists of a candidates folder, by sentence of the split.

    Args:
        path: the folder.
        longest: candidates of more tokens, end of sentence included, are left out.
        dictionary, left_pad: see the base class.
    """

    def __init__(self, path, longest, dictionary, left_pad):
        super().__init__(dictionary, left_pad)
        self.path, self._longest = Path(path), longest
        self._tokens = MMapIndexedDataset(str(self.path / TOKENS))
        self._costs, self._first, self._lists = (
            np.load(self.path / name, mmap_mode="r") for name in (COSTS, FIRST, LISTS)
        )
        if not len(self._tokens) == len(self._costs) == self._first[-1]:
            raise ValueError(f"{self.path} is damaged; make it again with dad-candidates")
        too_long = int((self._tokens.sizes > longest).sum())
        if too_long:
            logger.warning(
                f"{self.path}: {too_long:,} of {len(self._tokens):,} candidates have more than "
                f"{longest:,} tokens (--max-target-positions) and are left out"
            )

    def __len__(self):
        return len(self._lists)

    def __getitem__(self, index):
        number = self._lists[index]
        if number < 0:
            return [], np.zeros(0)
        places = [
            place
            for place in range(self._first[number], self._first[number + 1])
            if self._tokens.sizes[place] <= self._longest
        ]
        if len(places) < FEWEST:
            return [], np.zeros(0)
        return [self._tokens[place].long() for place in places], self._costs[places].astype(float)


class NoCandidates(_Lists):
    """Empty lists, for a bitext of a mixture that has no candidates."""

    def __init__(self, path, sentences, dictionary, left_pad):
        super().__init__(dictionary, left_pad)
        self.path, self._sentences = path, sentences

    def __len__(self):
        return self._sentences

    def __getitem__(self, index):
        return [], np.zeros(0)
