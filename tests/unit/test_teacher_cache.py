"""The files of a teacher cache, and how they get beside the sentence pairs of a batch."""

import math
import pickle

import numpy as np
import pytest
import torch
from fairseq.data.language_pair_dataset import collate
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.manifest import read_json, write_json
from data_prep.vocabulary import Vocabulary
from fairseq_plugins.data.teacher_targets import TeacherCaches, TeacherTargets
from fairseq_plugins.teachers.cache_format import (
    KIND,
    PRECISIONS,
    TeacherCache,
    bytes_per_token,
    data_fingerprint,
    index_type,
    number_of_shards,
    offsets_name,
    offsets_of,
    shard_names,
    write_array,
)

PAD, EOS = 1, 2
FILES = {"dict.en.txt": "abc"}


def distributions(lengths, k, entries, seed=1, precision="float32"):
    """Random (indices, lprobs) of each sentence."""
    chance = np.random.default_rng(seed)
    return [
        (
            chance.integers(0, entries, (length, k)).astype(index_type(entries)),
            np.sort(-chance.random((length, k)) * 9)[:, ::-1].astype(PRECISIONS[precision]),
        )
        for length in lengths
    ]


def write_cache(folder, sentences, *, k=3, entries=50, shard_sentences=4, precision="float32",
                data=None, split="train", **settings):  # fmt: skip
    """A cache folder of such sentences, as dad-cache-teacher leaves it; its path."""
    folder.mkdir()
    offsets = offsets_of([len(indices) for indices, _ in sentences])
    write_array(folder / offsets_name(split), offsets)
    for number in range(number_of_shards(len(sentences), shard_sentences)):
        own = sentences[number * shard_sentences : (number + 1) * shard_sentences]
        for name, arrays in zip(shard_names(split, number), zip(*own, strict=True), strict=True):
            write_array(folder / name, np.concatenate(arrays))
    record = {
        "settings": {
            "kind": KIND, "top_k": k, "temperature": 1.0, "precision": precision,
            "shard_sentences": shard_sentences, "vocabulary": FILES, "vocabulary_size": entries,
            "teacher": ["t"], "data": {split: data}, **settings,
        },
        "counts": {split: {"sentences": len(sentences), "tokens": int(offsets[-1])}},
    }  # fmt: skip
    write_json(folder / "manifest.json", record)
    return folder


def same(found, wanted):
    return all(
        np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
        for ours, theirs in zip(found, wanted, strict=True)
    )


# -- files -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), max_size=12), shard=st.integers(1, 13),
    k=st.integers(1, 5), entries=st.sampled_from([7, 1 << 16, (1 << 16) + 1]),
    precision=st.sampled_from(list(PRECISIONS)),
)  # fmt: skip
def test_what_was_written_is_read(lengths, shard, k, entries, precision, tmp_path_factory):
    wanted = distributions(lengths, k, entries, precision=precision)
    folder = write_cache(
        tmp_path_factory.mktemp("x") / "cache", wanted, k=k, entries=entries,
        shard_sentences=shard, precision=precision,
    )  # fmt: skip
    split = TeacherCache(folder).split("train")
    assert len(split) == len(wanted)
    assert all(same(split[number], wanted[number]) for number in range(len(wanted)))
    with pytest.raises(IndexError):
        split[len(wanted)]


def test_a_piece_takes_two_bytes_until_the_dictionary_is_too_large_for_them():
    assert index_type(1 << 16) == np.uint16 and index_type((1 << 16) + 1) == np.int32
    assert np.iinfo(index_type(1 << 16)).max == (1 << 16) - 1
    assert bytes_per_token(16, "float32", 30_000) == 96
    assert bytes_per_token(16, "float16", 30_000) == 64
    assert bytes_per_token(16, "float32", 100_000) == 128


def test_a_split_goes_to_another_process_without_its_maps(tmp_path):
    wanted = distributions([200, 3, 1, 4, 2], 3, 50)
    split = TeacherCache(write_cache(tmp_path / "cache", wanted)).split("train")
    before = len(pickle.dumps(split))
    split[0]
    sent = pickle.dumps(split)
    assert len(sent) == before
    again = pickle.loads(sent)
    assert all(same(again[number], wanted[number]) for number in range(5))


def test_a_shard_is_mapped_once(tmp_path):
    split = TeacherCache(write_cache(tmp_path / "cache", distributions([2] * 9, 3, 50)))
    split = split.split("train")
    assert np.shares_memory(split[0][0], split._shards[0][0])
    first = split._shards[0]
    split[3], split[8]
    assert split._shards[0] is first and set(split._shards) == {0, 2}


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"more")


def empty(path):
    path.write_bytes(b"")


def other_shape(path):
    array = np.load(path)
    np.save(path, np.concatenate([array, array[:1]]))


def other_type(path):
    np.save(path, np.load(path).astype(np.float64))


@pytest.mark.parametrize("spoil", [cut, lengthen, empty, other_shape, other_type])
@pytest.mark.parametrize(
    "name", ["train.offsets.npy", "train.000001.indices.npy", "train.000000.lprobs.npy"]
)
def test_a_file_of_another_size_is_noticed_when_the_cache_is_opened(tmp_path, name, spoil):
    folder = write_cache(tmp_path / "cache", distributions([2] * 7, 3, 50))
    spoil(folder / name)
    with pytest.raises(ValueError, match=f"{name} .*dad-cache-teacher --overwrite"):
        TeacherCache(folder)


def test_offsets_that_go_backwards_are_noticed(tmp_path):
    folder = write_cache(tmp_path / "cache", distributions([2] * 7, 3, 50))
    offsets = np.load(folder / "train.offsets.npy")
    offsets[3] = 99
    np.save(folder / "train.offsets.npy", offsets)
    with pytest.raises(ValueError, match="train.offsets.npy was changed"):
        TeacherCache(folder)


def test_a_missing_shard_is_noticed(tmp_path):
    folder = write_cache(tmp_path / "cache", distributions([2] * 7, 3, 50))
    (folder / "train.000001.lprobs.npy").unlink()
    with pytest.raises(FileNotFoundError, match="train.000001.lprobs.npy is missing"):
        TeacherCache(folder)


def test_what_is_no_cache_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="cache is missing; dad-cache-teacher makes it"):
        TeacherCache(tmp_path / "cache")
    (tmp_path / "cache.part").mkdir()
    with pytest.raises(FileNotFoundError, match="is unfinished; run"):
        TeacherCache(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    with pytest.raises(ValueError, match="has no manifest.json"):
        TeacherCache(tmp_path / "cache")
    write_json(tmp_path / "cache" / "manifest.json", {"settings": {}, "counts": {}})
    with pytest.raises(ValueError, match="does not describe a teacher cache"):
        TeacherCache(tmp_path / "cache")


def test_a_cache_of_another_format_is_refused(tmp_path):
    folder = write_cache(tmp_path / "cache", distributions([2], 3, 50))
    record = read_json(folder / "manifest.json")
    record["settings"]["kind"] = "teacher cache, format 2"
    write_json(folder / "manifest.json", record)
    with pytest.raises(ValueError, match="that this version reads"):
        TeacherCache(folder)


# -- batches ---------------------------------------------------------------------------------


@pytest.fixture
def targets(tmp_path):
    """Lengths, distributions and the companion of six sentences."""
    lengths = [3, 1, 5, 2, 4, 3]
    wanted = distributions(lengths, 3, 50)
    cache = TeacherCache(write_cache(tmp_path / "cache", wanted))
    return lengths, wanted, TeacherTargets(cache.split("train"), PAD)


def batch_of(lengths, numbers, left_pad, **padding):
    samples = [
        {
            "id": n, "source": torch.tensor([7] * (n + 1) + [EOS]),
            "target": torch.tensor([5] * (lengths[n] - 1) + [EOS]),
        }
        for n in numbers
    ]  # fmt: skip
    return collate(samples, PAD, EOS, left_pad_target=left_pad, **padding)


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("padding", [{}, {"pad_to_multiple": 8}], ids=["tight", "multiple of 8"])
def test_every_position_gets_its_own_distribution_on_either_side(targets, left_pad, padding):
    lengths, wanted, companion = targets
    batch = batch_of(lengths, [4, 1, 2, 0], left_pad, **padding)
    found = companion.collate([companion[n] for n in batch["id"].tolist()], batch)
    time = batch["target"].shape[1]
    assert found["indices"].shape == found["lprobs"].shape == (4, time, 3)
    assert found["indices"].dtype == torch.int64
    for row, number in enumerate(batch["id"].tolist()):
        length = lengths[number]
        rows = slice(time - length, time) if left_pad else slice(length)
        indices, lprobs = wanted[number]
        assert found["indices"][row, rows].tolist() == indices.tolist()
        assert found["lprobs"][row, rows].tolist() == lprobs.tolist()
    padded = batch["target"].eq(PAD)
    assert padded.any()
    assert found["indices"][padded].unique().tolist() == [0]
    torch.testing.assert_close(
        found["lprobs"][padded], torch.full_like(found["lprobs"][padded], math.log(1 / 4))
    )


def test_half_precision_batches_keep_the_teacher_as_it_is(targets):
    """fairseq makes half precision of all that is float32 in a batch."""
    lengths, _, companion = targets
    batch = batch_of(lengths, [0], False)
    found = companion.collate([companion[0]], batch)
    assert found["lprobs"].dtype != torch.float32


def test_a_target_that_is_not_the_cached_one_is_noticed(targets):
    lengths, _, companion = targets
    batch = batch_of([3, 1, 6, 2, 4, 3], [0, 2], False)
    with pytest.raises(ValueError, match=r"has 5 tokens of a sentence \(number 2\) that has 6"):
        companion.collate([companion[n] for n in batch["id"].tolist()], batch)


# -- caches of a mixture ---------------------------------------------------------------------


def prepared(folder, text):
    folder.mkdir()
    for lang in ("de", "en"):
        for suffix in ("bin", "idx"):
            (folder / f"train.de-en.{lang}.{suffix}").write_text(f"{text}{lang}{suffix}")
    return folder


@pytest.fixture
def two(tmp_path):
    """Two prepared folders with a cache each, and the vocabulary."""
    vocabulary = Vocabulary(tmp_path, "sentencepiece", "de", "en", FILES)
    for number, name in enumerate(("general", "domain"), start=1):
        data = data_fingerprint(prepared(tmp_path / name, name), "train", "de", "en")
        sentences = distributions([2] * number, 3, 50)
        write_cache(tmp_path / f"{name}-cache", sentences, data=data, teacher=[name])
    return tmp_path, vocabulary


@pytest.mark.parametrize("order", [("general", "domain"), ("domain", "general")])
def test_each_bitext_finds_its_own_cache_whatever_the_order(two, order):
    root, vocabulary = two
    caches = TeacherCaches(":".join(str(root / f"{name}-cache") for name in order), vocabulary)
    for number, name in enumerate(("general", "domain"), start=1):
        found = caches.targets(root / name, "train", PAD, training=True)
        assert len(found) == number and f"{name}-cache" in found.path
    caches.check_all_used()
    assert (caches.top_k, caches.temperature) == (3, 1.0)


def test_a_bitext_without_a_cache_is_refused_with_the_command_that_makes_it(two):
    root, vocabulary = two
    caches = TeacherCaches(str(root / "domain-cache"), vocabulary)
    message = (
        f"train split of {root / 'general'}; {root / 'domain-cache'} was made from other data .*"
        f"dad-cache-teacher --teacher MODEL --data {root / 'general'} --splits train,valid "
        f"--top-k 3 --temperature 1 --out CACHE"
    )
    with pytest.raises(ValueError, match=message):
        caches.targets(root / "general", "train", PAD, training=True)
    assert caches.targets(root / "general", "train", PAD, training=False) is None


@pytest.mark.parametrize("suffix", ["de.bin", "en.bin", "de.idx", "en.idx"])
def test_a_cache_of_data_that_changed_since_is_refused(two, suffix):
    root, vocabulary = two
    path = root / "domain" / f"train.de-en.{suffix}"
    path.write_text(path.read_text().swapcase())  # of the same size
    caches = TeacherCaches(str(root / "domain-cache"), vocabulary)
    with pytest.raises(ValueError, match=rf"domain-cache was made .*\(train.de-en.{suffix} differ"):
        caches.targets(root / "domain", "train", PAD, training=True)


def test_a_cache_that_nothing_reads_is_refused_by_name(two):
    root, vocabulary = two
    caches = TeacherCaches(f"{root / 'general-cache'}:{root / 'domain-cache'}", vocabulary)
    caches.targets(root / "general", "train", PAD, training=True)
    with pytest.raises(ValueError, match="domain-cache was made from other data than this train"):
        caches.check_all_used()


def test_a_cache_of_another_vocabulary_is_refused_with_the_cure(two):
    root, vocabulary = two
    other = Vocabulary(root, "sentencepiece", "de", "en", {"dict.en.txt": "other"})
    with pytest.raises(ValueError, match="domain-cache was made with another .*dad-generate"):
        TeacherCaches(str(root / "domain-cache"), other)


@pytest.mark.parametrize("name, value, flag", [
    ("top_k", 2, "--top-k 3 .* with 2"), ("temperature", 2.0, "--temperature 1 .* with 2"),
])  # fmt: skip
def test_caches_of_a_mixture_must_agree(two, name, value, flag):
    root, vocabulary = two
    sentences = distributions([2], 2 if name == "top_k" else 3, 50)
    write_cache(root / "other", sentences, **({"k": 2} if name == "top_k" else {name: value}))
    with pytest.raises(ValueError, match=f"{flag}; the caches of a mixture"):
        TeacherCaches(f"{root / 'domain-cache'}:{root / 'other'}", vocabulary)


def test_two_teachers_for_one_text_are_refused_in_training_and_the_first_validates(two):
    root, vocabulary = two
    data = data_fingerprint(root / "domain", "train", "de", "en")
    write_cache(root / "other", distributions([2] * 2, 3, 50), data=data, teacher=["other"])
    caches = TeacherCaches(f"{root / 'other'}:{root / 'domain-cache'}", vocabulary)
    with pytest.raises(ValueError, match="other and .*domain-cache, which hold different teachers"):
        caches.targets(root / "domain", "train", PAD, training=True)
    found = caches.targets(root / "domain", "train", PAD, training=False)
    assert found.path.startswith(str(root / "other"))
