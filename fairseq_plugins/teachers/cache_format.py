"""The files of a teacher cache: a teacher's k largest log-probabilities at every target position.

  SPLIT.offsets.npy          int64, (sentences + 1): the tokens of sentence n, counted from 0, are
                             offsets[n] to offsets[n + 1] of the split, end of sentence included
  SPLIT.000042.indices.npy   numbers in the target dictionary, (tokens of the shard, k): uint16, or
                             int32 where the dictionary has more than 65,536 entries
  SPLIT.000042.lprobs.npy    natural logarithms, (tokens of the shard, k), float32 or float16,
                             largest first
  manifest.json              settings (top_k, temperature, shard_sentences ...), counts, and SHA-256
                             of the data, the teachers and the vocabulary

Shard s holds the sentences s * shard_sentences and following. NumPy is all that reading takes:
``numpy.load(path, mmap_mode="r")``.
"""

import os
from pathlib import Path

import numpy as np

from data_prep.files import sha256
from data_prep.manifest import manifest_path, read_manifest

PRECISIONS = {"float32": np.float32, "float16": np.float16}
KIND = "teacher cache, format 1"


def index_type(vocabulary_size):
    """Smallest of uint16 and int32 that can number the entries of a dictionary."""
    return np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.int32)


def bytes_per_token(top_k, precision, vocabulary_size):
    """Bytes that a target token takes on disk."""
    return top_k * (np.dtype(PRECISIONS[precision]).itemsize + index_type(vocabulary_size).itemsize)


def offsets_of(lengths):
    """Tokens before each sentence of a split, and in all of them: int64, (sentences + 1)."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def offsets_name(split):
    return f"{split}.offsets.npy"


def shard_names(split, number):
    """Names of the files of a shard: indices, log-probabilities."""
    return tuple(f"{split}.{number:06d}.{kind}.npy" for kind in ("indices", "lprobs"))


def number_of_shards(sentences, shard_sentences):
    return -(-sentences // shard_sentences)


def write_array(path, array):
    """Write ``.npy``, whole or not at all; a write that fails names the file."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def data_fingerprint(folder, split, source_lang, target_lang):
    """{file name: SHA-256} of what a split of a prepared folder consists of.

    The whole files are hashed, at about a gigabyte per second: a second or two for ten million
    pairs. fairseq reads them whole when it opens them, so the disk is hardly read a second time.

    Raises:
        FileNotFoundError: the folder has no such split.
    """
    names = [
        f"{split}.{source_lang}-{target_lang}.{lang}.{suffix}"
        for lang in (source_lang, target_lang)
        for suffix in ("bin", "idx")
    ]
    for name in names:
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(
                f"{Path(folder) / name} is missing, so {folder} has no split {split!r}"
            )
    return {name: sha256(Path(folder) / name) for name in names}


class TeacherCache:
    """A finished cache folder; its files are mapped into memory when they are first read.

    Attributes:
        path: the folder.
        top_k: log-probabilities at each position.
        temperature: of the teacher's distribution.
        vocabulary: fingerprint {file name: SHA-256} of the vocabulary.
        teachers: SHA-256 of the weights of each teacher.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks one of its files.
        ValueError: it is something else than a cache, or a file has another size than its
            manifest says. What is in the files is not hashed here, which would read them all:
            dad-cache-teacher does that when it is run again.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.is_dir():
            part = self.path.with_name(self.path.name + ".part")
            state = (
                f"unfinished; run the dad-cache-teacher that made {part} again"
                if part.is_dir() else "missing; dad-cache-teacher makes it"
            )  # fmt: skip
            raise FileNotFoundError(f"teacher cache {self.path} is {state}")
        if not manifest_path(self.path).exists():
            raise ValueError(
                f"{self.path} has no manifest.json, so it is no teacher cache; "
                f"dad-cache-teacher makes one"
            )
        record = read_manifest(self.path)
        try:
            settings, counts = record["settings"], record["counts"]
            kind = settings["kind"]
            self.top_k, self.temperature = int(settings["top_k"]), float(settings["temperature"])
            self.shard_sentences = int(settings["shard_sentences"])
            self.vocabulary, self.teachers = settings["vocabulary"], settings["teacher"]
            self.vocabulary_size = int(settings["vocabulary_size"])
            self._precision = PRECISIONS[settings["precision"]]
            self._data, self._counts = settings["data"], counts
            self._sizes = {name: (int(c["sentences"]), int(c["tokens"]))
                           for name, c in counts.items()}  # fmt: skip
        except (KeyError, TypeError, ValueError):
            kind = None
        if kind != KIND:
            raise ValueError(
                f"{manifest_path(self.path)} does not describe a teacher cache that this version "
                f"reads; make it anew with dad-cache-teacher"
            )
        self._splits = {split: self._checked(split) for split in self._sizes}

    def data(self, split):
        """Fingerprint of the data that a split was made from, or None if it is not there."""
        return self._data.get(split)

    def split(self, name):
        """The ``CachedSplit`` of this name."""
        return self._splits[name]

    def _checked(self, name):
        sentences, tokens = self._sizes[name]
        offsets = self._mapped(offsets_name(name), np.dtype(np.int64), (sentences + 1,))
        if offsets[0] != 0 or offsets[-1] != tokens or (np.diff(offsets) < 0).any():
            raise ValueError(f"{self.path / offsets_name(name)} was changed; {_CURE}")
        split = CachedSplit(self, name, np.array(offsets))
        for number in range(number_of_shards(sentences, self.shard_sentences)):
            split.open_shard(number)
        return split

    def _mapped(self, name, dtype, shape):
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing though the manifest counts it; {_CURE}")
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); {_CURE}") from None
        found = mapped.offset + mapped.nbytes
        if (mapped.dtype, mapped.shape) != (dtype, shape) or found != path.stat().st_size:
            raise ValueError(
                f"{path} holds {mapped.dtype} {mapped.shape} in {path.stat().st_size:,} bytes, "
                f"not {dtype} {shape}; {_CURE}"
            )
        return mapped


_CURE = "copy the cache again, or make it anew: dad-cache-teacher --overwrite"


class CachedSplit:
    """Distributions of a split: ``[n]`` is (indices, lprobs) of sentence n, both (tokens, k).

    Safe in the workers of a DataLoader, forked or spawned: the files are mapped when they are
    read for the first time in a process, and maps are not sent to another one.
    """

    def __init__(self, cache, name, offsets):
        self._cache, self.name, self._offsets = cache, name, offsets
        self._shards = {}

    @property
    def path(self):
        return self._cache.path

    @property
    def top_k(self):
        return self._cache.top_k

    def __len__(self):
        return len(self._offsets) - 1

    def __getitem__(self, sentence):
        if not 0 <= sentence < len(self):
            raise IndexError(f"{self.path} has {len(self):,} sentences of {self.name}")
        number = sentence // self._cache.shard_sentences
        if number not in self._shards:
            self._shards[number] = self.open_shard(number)
        first = self._offsets[number * self._cache.shard_sentences]
        begin, end = self._offsets[sentence : sentence + 2] - first
        indices, lprobs = self._shards[number]
        return indices[begin:end], lprobs[begin:end]

    def open_shard(self, number):
        """Both arrays of a shard, mapped and of the right size."""
        size = self._cache.shard_sentences
        tokens = int(
            self._offsets[min((number + 1) * size, len(self))] - self._offsets[number * size]
        )
        types = index_type(self._cache.vocabulary_size), np.dtype(self._cache._precision)
        return tuple(
            np.asarray(self._cache._mapped(name, dtype, (tokens, self.top_k)))
            for name, dtype in zip(shard_names(self.name, number), types, strict=True)
        )

    def __getstate__(self):
        return {**self.__dict__, "_shards": {}}
