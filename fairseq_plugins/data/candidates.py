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
from data_prep.files import sha256
from data_prep.manifest import read_manifest
from data_prep.vocabulary import differences

logger = logging.getLogger(__name__)

TOKENS, COSTS, FIRST, LISTS = "candidates", "costs.npy", "first.npy", "lists.npy"
FILES = (f"{TOKENS}.bin", f"{TOKENS}.idx", COSTS, FIRST, LISTS)
FEWEST = 2  # with fewer there is nothing to choose between


def data_fingerprint(folder, split, langs):
    """{file name: SHA-256} of the binaries of a prepared folder's split.

    Raises:
        FileNotFoundError: the folder has no such split.
    """
    prefix = f"{split}.{langs[0]}-{langs[1]}"
    names = [f"{prefix}.{lang}.{kind}" for lang in langs for kind in ("bin", "idx")]
    for name in names:
        if not (Path(folder) / name).exists():
            raise FileNotFoundError(f"{Path(folder) / name} is missing; prepare the folder again")
    return {name: sha256(Path(folder) / name) for name in names}


def match_candidates(paths, places, vocabulary):
    """{(prepared folder, split): candidates folder}, each folder where its data are.

    Args:
        paths: candidates folders.
        places: [(prepared folder, split), ...] that the run reads.
        vocabulary: that of the run.

    Raises:
        FileNotFoundError, ValueError: a folder is no candidates folder, was made with another
            vocabulary, belongs to none of the places, or to the same as another.
    """
    langs = (vocabulary.source_lang, vocabulary.target_lang)
    matched, known = {}, {}
    for path in map(Path, paths):
        settings = _settings(path)
        differing = differences(vocabulary.files, settings["vocabulary"])
        if differing:
            raise ValueError(
                f"candidates {path} were made with another vocabulary ({', '.join(differing)} "
                f"differ); make them again with dad-candidates --data and a folder of this run"
            )
        found = []
        for place in dict.fromkeys(places):  # a bitext may be in a mixture twice
            if place[1] != settings["split"]:
                continue
            if place not in known:
                known[place] = data_fingerprint(*place, langs)
            found += [place] if known[place] == settings["data"] else []
        if not found:
            folders = ", ".join(sorted({f"{folder} ({split})" for folder, split in places}))
            raise ValueError(
                f"candidates {path} belong to none of the prepared folders of this run: "
                f"{folders}; they were made for the {settings['split']} of "
                f"{settings['prepared']}. Make them with dad-candidates --data FOLDER, anew "
                f"whenever FOLDER is prepared anew"
            )
        for place in found:
            if place in matched:
                raise ValueError(
                    f"--candidates names two folders for the {place[1]} of {place[0]}: "
                    f"{matched[place]} and {path}; keep one of them"
                )
            matched[place] = path
    return matched


def candidates_beside(folder, split, matched, vocabulary, dictionary, left_pad, longest):
    """{"candidates": companion} of a prepared folder's split; {} where there is nothing to put.

    If some bitext that is trained on has candidates, every one gets a companion, since a batch of
    a mixture is made alike from all of them.

    Args:
        folder, split: the place.
        matched: of ``match_candidates``.
        vocabulary: of the run.
        dictionary, left_pad, longest: see ``Candidates``.
    """
    if (folder, split) in matched:
        companion = Candidates(matched[folder, split], longest, dictionary, left_pad)
        logger.info(f"{folder}: candidates for {split} from {companion.path}")
        return {"candidates": companion}
    if all(their_split != split for _, their_split in matched):
        return {}
    src_lang, tgt_lang = vocabulary.source_lang, vocabulary.target_lang
    sentences = len(binary_sizes(Path(folder) / f"{split}.{src_lang}-{tgt_lang}.{src_lang}"))
    logger.info(f"{folder}: no candidates for {split}, it learns from its targets alone")
    return {"candidates": NoCandidates(folder, sentences, dictionary, left_pad)}


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
