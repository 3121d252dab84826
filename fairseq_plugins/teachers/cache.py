"""Write a teacher's distributions over the targets of a prepared folder to disk, once.

At every position of every target (references and distilled targets alike), the teachers read the
source and the target so far, and their --top-k largest log-probabilities are kept. Several
--teacher are an ensemble: their probabilities are averaged. Train with

  fairseq-train PREPARED --criterion word_distillation --teacher-cache CACHE ...

and no teacher has to be loaded: each epoch reads what was computed once. A mixture takes a
cache for each of its bitexts. The data must stay as it is; prepared anew, it needs a new cache.

Killed at any moment, the same command goes on after the last finished shard and ends with the
same bytes (CPU). Work in progress lies in CACHE.part; CACHE appears when all is done. Run the
same command in several processes, on one machine or on several that share the disk, and they
share the work. Run again, it checks every byte of the finished cache by SHA-256 (training
checks sizes alone).

A target token takes K x 6 bytes, 96 for --top-k 16, or K x 4 with --precision float16, which
rounds a log-probability by up to 1/2048 of its value. Dictionaries with more than 65,536 entries
take K x 2 more. Size and free space are printed before the work begins.

Examples:
  dad-cache-teacher --teacher teacher/general --data corpora/general/prepared --out cache/general
  dad-cache-teacher --teacher teacher/a --teacher teacher/b --data prepared --out cache/ab --top-k 8
"""

import argparse
import math
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from data_prep.command import parser, run
from data_prep.files import put_in_place, sha256
from data_prep.manifest import (
    manifest_path,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.generation.models import WEIGHTS, add_checkpoint_flags
from fairseq_plugins.shared_folder import SharedFolder, differences, is_made
from fairseq_plugins.teachers.cache_format import (
    KIND,
    PRECISIONS,
    bytes_per_token,
    data_fingerprint,
    index_type,
    number_of_shards,
    offsets_name,
    offsets_of,
    shard_names,
    write_array,
)

PROG = "dad-cache-teacher"

DEVICES = ("auto", "cpu", "cuda")
COMPUTE_TYPES = ("float32", "float16", "bfloat16")
BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
SHARD_SENTENCES = 10_000
SECONDS_BETWEEN_LOOKS = 0.3  # at the shards of other processes
CHANGED = {  # settings whose values say nothing to people
    "teacher": "the teacher changed",
    "data": "the data changed",
    "vocabulary": "the vocabulary changed",
}


def cache_teacher(
    teachers, data, out, *, top_k=16, temperature=1.0, splits=("train", "valid"),
    precision="float32", batch_tokens=None, shard_sentences=SHARD_SENTENCES, device="auto",
    compute_type="float32", trust=False, allow_unknown_vocabulary=False, overwrite=False,
):  # fmt: skip
    """Make the cache folder ``out``; return its manifest, a dictionary.

    Args:
        teachers: MODEL folders or checkpoints; several are an ensemble.
        data: prepared folder.
        out: folder to make; ``OUT.part`` is the work folder.
        top_k: log-probabilities kept at each position, at most the size of the dictionary.
        temperature: above 0; the distribution is softmax(logits / temperature).
        splits: names of the splits, as fairseq calls them.
        precision: of what is kept, float32 or float16.
        batch_tokens: most pieces in a batch, on the longer side, padding included; None: by
            device.
        shard_sentences: sentences that are kept or lost together when the run is killed.
        device: cpu, cuda, or auto (cuda where there is one).
        compute_type: float32, float16 or bfloat16, of the teachers' arithmetic.
        trust: unpickle whatever a checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a vocabulary fingerprint.
        overwrite: replace what was made, or begun, with other settings.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
        OSError: the disk is too small; nothing was computed.
    """
    started = time.monotonic()
    device = _check(
        top_k, temperature, splits, precision, batch_tokens, shard_sentences, device, compute_type
    )
    data, out, splits = Path(data), Path(out), list(splits)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} for {out.name} is missing; make it first")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; --out names the folder to write")
    weights = [_weights(Path(path)) for path in teachers]
    vocabulary = read_vocabulary(data)
    fingerprint = {
        split: data_fingerprint(data, split, vocabulary.source_lang, vocabulary.target_lang)
        for split in splits
    }
    task = _task(data, vocabulary, trust, allow_unknown_vocabulary)
    entries = len(task.target_dictionary)
    if top_k > entries:
        raise ValueError(f"--top-k {top_k:,} is more than the {entries:,} entries of {data}")
    settings = {
        "kind": KIND,
        "teacher": [sha256(path) for path in weights],
        "data": fingerprint,
        "vocabulary": vocabulary.files,
        "vocabulary_size": entries,
        "top_k": top_k,
        "temperature": temperature,
        "splits": splits,
        "precision": precision,
        "batch_tokens": batch_tokens or BATCH_TOKENS[device],
        "shard_sentences": shard_sentences,
        "device": device,
        "compute_type": compute_type,
    }
    work = CacheWork(out)
    try:
        while True:
            with work.entered(_say) as alone:
                if _is_done(out, settings, overwrite):
                    if alone:
                        _say(f"{out} is there already, made from the same data and settings")
                        work.clear()  # a kill at the very end may have left some of it
                    return read_manifest(out)
                if not _agree(work, settings, alone, overwrite):
                    continue
                shards = _load_shards(task, settings)
                _cache_missing(work, shards, teachers, task, settings, alone)
                if not work.be_alone() or _is_done(out, settings, overwrite):
                    continue
                # while we waited, another may have begun afresh, or died as it stored a shard
                if work.settings() != settings or not all(map(work.record, shards)):
                    continue
                _check_unchanged(data, vocabulary, weights, settings)
                inputs = [*weights, *(data / name for files in fingerprint.values()
                                      for name in files)]  # fmt: skip
                return _finish(work, shards, settings, inputs, started)
    except OSError as error:
        # a write that fails half-way (disk full) does not say where
        if error.errno and error.filename is None:
            error.filename = str(work.path)
        raise


@dataclass(frozen=True)
class Shard:
    """Sentences ``first`` to ``last`` (excluded) of a split that are kept or lost together.

    ``offsets`` are those of the whole split, ``key`` numbers the shards of all splits.
    """

    dataset: object
    split: str
    number: int
    key: int
    first: int
    last: int
    offsets: np.ndarray

    @property
    def tokens(self):
        return int(self.offsets[self.last] - self.offsets[self.first])

    @property
    def names(self):
        return shard_names(self.split, self.number)


class CacheWork(SharedFolder):
    """Finished shards of the cache that will become folder ``out``.

    The files lie in ``OUT.part/cache``, which is renamed at the end. Beside it,
    ``train.000042.json`` holds the SHA-256 of a shard's files; it is written last, so that a
    shard without it is not finished.
    """

    def __init__(self, out):
        self.out = Path(out)
        super().__init__(self.out.with_name(self.out.name + ".part"), "*.*.json")
        self.cache = self.path / "cache"

    def record(self, shard):
        """{file name: SHA-256} of a shard if it was finished and its files have their size."""
        path = self._record(shard)
        if not path.exists():
            return None
        try:
            found = read_json(path)
            rows = [_rows(self.cache / name) for name in shard.names]
        except (ValueError, OSError):
            return None
        whole = isinstance(found, dict) and sorted(found) == sorted(shard.names)
        return found if whole and rows == [shard.tokens] * 2 else None

    def is_whole(self, shard):
        """Whether a shard was finished and not a byte of it has changed since."""
        found = self.record(shard)
        return bool(found) and all(sha256(self.cache / n) == digest for n, digest in found.items())

    def was_begun(self, shard):
        """Whether a finished shard should lie there."""
        return any(path.exists() for path in
                   (self._record(shard), *(self.cache / name for name in shard.names)))  # fmt: skip

    def store(self, shard, arrays):
        """Write a finished shard."""
        self._record(shard).unlink(missing_ok=True)
        self.cache.mkdir(exist_ok=True)
        for name, array in zip(shard.names, arrays, strict=True):
            write_array(self.cache / name, array)
        write_json(self._record(shard), {n: sha256(self.cache / n) for n in shard.names})

    def _record(self, shard):
        return self.path / f"{shard.split}.{shard.number:06d}.json"


def teacher_targets(networks, shard, settings, advance=lambda tokens: None):
    """A shard's k largest log-probabilities: indices and lprobs, both (tokens, k).

    Args:
        networks: from ``load_teachers``, on the device of the settings.
        shard: ``Shard``.
        settings: as in the manifest.
        advance: called with the number of target tokens that were done.
    """
    from fairseq.utils import move_to_cuda

    from fairseq_plugins.teachers.online import teacher_lprobs

    k, first_token = settings["top_k"], shard.offsets[shard.first]
    indices = np.empty((shard.tokens, k), index_type(settings["vocabulary_size"]))
    lprobs = np.empty((shard.tokens, k), PRECISIONS[settings["precision"]])
    pad = shard.dataset.tgt_dict.pad()
    for numbers in _batches(shard, settings["batch_tokens"]):
        sample = shard.dataset.collater([shard.dataset[number] for number in numbers])
        real = sample["target"].ne(pad)
        if settings["device"] == "cuda":
            sample = move_to_cuda(sample)
        found = teacher_lprobs(networks, sample["net_input"], settings["temperature"])
        top = found.topk(k, dim=-1)  # largest first; (batch, time, k)
        top_indices = top.indices.cpu()[real].numpy()
        top_lprobs = top.values.cpu()[real].numpy()
        done = 0
        # the collater sorts by source length
        for number in sample["id"].tolist():
            begin, end = shard.offsets[number : number + 2] - first_token
            rows = slice(done, done + int(end - begin))
            indices[begin:end], lprobs[begin:end] = top_indices[rows], top_lprobs[rows]
            done = rows.stop
        if done != len(top_indices):
            raise ValueError(
                f"{shard.split} has {len(top_indices):,} target tokens in a batch where its index "
                f"counts {done:,}; prepare the data again (python -m data_prep.binarise)"
            )
        advance(done)
    return indices, lprobs


def _batches(shard, batch_tokens):
    """Yield lists of sentence numbers, by length; they depend on the data alone."""
    longest = np.asarray(shard.dataset.sizes)[shard.first : shard.last].max(axis=1)
    batch, width = [], 0
    for place in np.argsort(longest, kind="stable")[::-1]:
        width = max(width, int(longest[place]))
        if batch and width * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, width = [], int(longest[place])
        batch.append(shard.first + int(place))
    if batch:
        yield batch


def _load_shards(task, settings):
    from fairseq_plugins.generation.fairseq_backend import quiet

    shards = []
    for split in settings["splits"]:
        with quiet():
            task.load_dataset(split)
        dataset = task.datasets[split]
        offsets = offsets_of(dataset.tgt_sizes)
        size = settings["shard_sentences"]
        for number in range(number_of_shards(len(dataset), size)):
            first, last = number * size, min((number + 1) * size, len(dataset))
            shards.append(Shard(dataset, split, number, len(shards), first, last, offsets))
    return shards


def _cache_missing(work, shards, teachers, task, settings, alone):
    """Compute until every shard is finished."""
    done = {shard.key for shard in shards if work.is_whole(shard)}
    tokens = sum(shard.tokens for shard in shards)
    kept = sum(shard.tokens for shard in shards if shard.key in done)
    if alone:
        _check_space(work, settings, shards, tokens, kept)
        if kept:
            _say(f"{work.path}: going on after {kept:,} of {tokens:,} tokens")
        for shard in shards:
            if shard.key not in done and work.was_begun(shard):
                _say(f"{work.path}: {shard.split} shard {shard.number} is damaged or unfinished; "
                     f"computing it again")  # fmt: skip
        work.share()
    if len(done) == len(shards):
        return
    networks = _load_teachers(teachers, task, settings, shards)
    on_screen = sys.stderr.isatty()
    bar = tqdm(
        total=tokens, initial=kept, unit=" tokens", unit_scale=True, desc=work.out.name,
        mininterval=0.5 if on_screen else 30, dynamic_ncols=on_screen,
    )  # fmt: skip
    with bar:
        while True:
            for shard in shards:
                if shard.key in done or not work.claim(shard.key):
                    continue
                if work.record(shard) and work.is_whole(shard):  # another process was quicker
                    bar.update(shard.tokens)
                else:
                    work.store(shard, teacher_targets(networks, shard, settings, bar.update))
                work.release(shard.key)
                done.add(shard.key)
            if len(done) == len(shards):
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)  # the rest is with other processes


def _check_space(work, settings, shards, tokens, kept):
    """Print the size of the cache; refuse to begin what the disk cannot hold."""
    each = bytes_per_token(
        settings["top_k"], settings["precision"], settings["vocabulary_size"]
    )
    per_sentence = 8  # offsets
    sentences = sum(shard.last - shard.first for shard in shards)
    total = tokens * each + per_sentence * sentences
    free = shutil.disk_usage(work.path).free
    _say(
        f"{work.out}: {tokens:,} target tokens x {each} bytes = {_size(total)}; "
        f"{_size(free)} free"
    )
    if total - kept * each > free:
        raise OSError(
            f"{work.out} needs {_size(total - kept * each)} and the disk has {_size(free)}; make "
            f"room, lower --top-k, or pass --precision float16"
        )


def _load_teachers(teachers, task, settings, shards):
    from fairseq_plugins.generation.fairseq_backend import positions_of
    from fairseq_plugins.teachers.online import load_teachers

    networks = load_teachers(teachers, task, getattr(torch, settings["compute_type"]))
    positions = positions_of(networks)
    for shard in shards:
        sizes = np.asarray(shard.dataset.sizes)[shard.first : shard.last]  # (sentences, 2)
        for side, column in (("source", 0), ("target", 1)):
            longest = int(sizes[:, column].argmax())
            if sizes[longest, column] > positions[side]:
                raise ValueError(
                    f"sentence {shard.first + longest + 1} of {shard.split} has "
                    f"{sizes[longest, column]:,} {side} pieces, and the teacher takes "
                    f"{positions[side]:,}; prepare the data with "
                    f"python -m data_prep.binarise --max-pieces {positions[side] - 1}"
                )
    return [network.to(settings["device"]) for network in networks]


def _finish(work, shards, settings, inputs, started):
    outputs, counts = {}, {}
    for shard in shards:
        outputs.update(work.record(shard))
    for split in settings["splits"]:
        own = [shard for shard in shards if shard.split == split]
        offsets = own[0].offsets
        path = work.cache / offsets_name(split)
        write_array(path, offsets)
        outputs[path.name] = sha256(path)
        counts[split] = {
            "sentences": len(offsets) - 1,
            "tokens": int(offsets[-1]),
            "bytes": sum((work.cache / n).stat().st_size for shard in own for n in shard.names),
        }
        if sum(_rows(work.cache / shard.names[0]) for shard in own) != offsets[-1]:
            raise ValueError(f"{work.path} lost tokens of {split}; remove it and run again")
    write_manifest(
        work.cache, settings=settings, inputs=inputs, counts=counts,
        seconds=time.monotonic() - started, outputs=outputs,
    )  # fmt: skip
    put_in_place(work.cache, work.out)
    work.clear()
    return read_manifest(work.out)


def _is_done(out, settings, overwrite):
    """Whether ``out`` is what this command would make.

    Raises:
        FileExistsError: it is something else, and may not be overwritten.
    """
    if not out.exists():
        return False
    changes = ["it has no manifest, so what made it is unknown"]
    if manifest_path(out).exists():
        record = read_manifest(out)
        changes = differences(record.get("settings", {}), settings, CHANGED)
        if not changes and not _untouched(out, record.get("outputs", {})):
            changes = ["its files were changed after they were made"]
    return is_made(out, changes, overwrite)


def _untouched(out, outputs):
    return bool(outputs) and all(
        (out / name).is_file() and sha256(out / name) == digest for name, digest in outputs.items()
    )


def _agree(work, settings, alone, overwrite):
    """Whether the work in the folder is ours to go on with; False: look again."""
    before = work.settings()
    changes = differences(before, settings, CHANGED) if before else []
    if changes and not (alone and overwrite):
        whose = "is at work" if not alone else "was interrupted"
        raise FileExistsError(
            f"{work.path}: a run {whose} there with other settings: {'; '.join(changes)}. Use the "
            f"same ones, name another --out, or pass --overwrite to begin afresh"
        )
    if alone and (changes or not before):
        work.begin(settings)
    elif not alone and not before:
        return False
    elif not alone:
        _say(f"{work.path}: sharing the work with another process")
    return True


def _check_unchanged(data, vocabulary, weights, settings):
    languages = vocabulary.source_lang, vocabulary.target_lang
    now = {split: data_fingerprint(data, split, *languages) for split in settings["splits"]}
    if now != settings["data"] or [sha256(path) for path in weights] != settings["teacher"]:
        raise ValueError(f"{data} or a teacher was changed during the run. Run again")


def _task(data, vocabulary, trust, allow_unknown_vocabulary):
    """The task that reads the prepared folder as training does."""
    from fairseq.dataclass.configs import FairseqConfig

    from fairseq_plugins.generation.fairseq_backend import quiet
    from fairseq_plugins.tasks.options import SequenceDistillationConfig
    from fairseq_plugins.tasks.sequence_distillation import SequenceDistillationTask

    own = SequenceDistillationConfig(
        data=str(data), source_lang=vocabulary.source_lang, target_lang=vocabulary.target_lang,
        valid_beam=0, trust_checkpoint=trust, allow_unknown_vocabulary=allow_unknown_vocabulary,
        # the sentences that are there decide what a teacher must take, see _load_teachers
        max_source_positions=0, max_target_positions=0,
    )  # fmt: skip
    # within fairseq's settings, where the task finds what it borrows from other groups
    cfg = OmegaConf.create(FairseqConfig(task=OmegaConf.structured(own)))
    with quiet():
        return SequenceDistillationTask.setup_task(cfg.task, from_checkpoint=True)


def _weights(path):
    return path / WEIGHTS if path.is_dir() else path


def _rows(path):
    """Rows of an array on disk, read from its header and its size.

    Raises:
        ValueError: the file is damaged.
    """
    mapped = np.lib.format.open_memmap(path, mode="r")
    if mapped.offset + mapped.nbytes != path.stat().st_size:
        raise ValueError(f"{path} has another size than its header says")
    return len(mapped)


def _check(top_k, temperature, splits, precision, batch_tokens, shard_sentences, device,
           compute_type):  # fmt: skip
    """Refuse what is out of range; returns the device, cpu or cuda."""
    for flag, value in (("--top-k", top_k), ("--batch-tokens", batch_tokens),
                        ("--shard-sentences", shard_sentences)):  # fmt: skip
        if value is not None and value < 1:
            raise ValueError(f"{flag} is 1 or more, not {value}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"--temperature is a number above 0, not {temperature:g}")
    for flag, value, known in (
        ("--precision", precision, PRECISIONS), ("--device", device, DEVICES),
        ("--compute-type", compute_type, COMPUTE_TYPES),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{flag} is one of {', '.join(known)}, not {value}")
    if not splits or len(set(splits)) != len(splits) or not all(splits):
        raise ValueError(
            f"--splits takes different names with commas between, not {','.join(splits)!r}"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU here; pass --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _size(number):
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    run(_main, PROG)


def _main(argv=None):
    words = parser(__doc__, PROG)
    required = {"required": True, "default": argparse.SUPPRESS}
    words.add_argument(
        "--teacher", action="append", metavar="MODEL", **required,
        help="MODEL folder or checkpoint; given several times, an ensemble",
    )  # fmt: skip
    words.add_argument("--data", metavar="DIR", help="prepared folder", **required)
    words.add_argument("--out", metavar="DIR", help="cache folder to write", **required)
    words.add_argument("--top-k", type=int, default=16, metavar="K",
                       help="log-probabilities kept at each position")  # fmt: skip
    words.add_argument("--temperature", type=float, default=1.0, metavar="T",
                       help="the teacher's distribution is softmax(logits / T)")  # fmt: skip
    words.add_argument("--splits", default="train,valid", metavar="A,B",
                       help="splits of the prepared folder")  # fmt: skip
    words.add_argument("--precision", choices=list(PRECISIONS), default="float32",
                       help="of the log-probabilities on disk")  # fmt: skip
    words.add_argument(
        "--batch-tokens", type=int, metavar="N", default=argparse.SUPPRESS,
        help=f"most pieces in a batch, padding included; {BATCH_TOKENS['cpu']:,} on a CPU and "
        f"{BATCH_TOKENS['cuda']:,} on a GPU by default",
    )  # fmt: skip
    words.add_argument("--shard-sentences", type=int, default=SHARD_SENTENCES, metavar="N",
                       help="sentences in a file, which are lost together by a kill")  # fmt: skip
    words.add_argument("--device", choices=DEVICES, default="auto",
                       help="auto: a GPU where there is one")  # fmt: skip
    words.add_argument("--compute-type", choices=COMPUTE_TYPES, default="float32",
                       help="of the teacher's arithmetic")  # fmt: skip
    words.add_argument("--overwrite", action="store_true",
                       help="replace what was made, or begun, with other settings")  # fmt: skip
    add_checkpoint_flags(words)
    args = vars(words.parse_args(argv))
    out = args["out"]
    record = cache_teacher(
        args.pop("teacher"), args.pop("data"), args.pop("out"),
        splits=[name.strip() for name in args.pop("splits").split(",")],
        trust=args.pop("trust_checkpoint"), **args,
    )  # fmt: skip
    for split, counts in record["counts"].items():
        _say(
            f"{out}: {counts['sentences']:,} sentences of {split}, {counts['tokens']:,} tokens, "
            f"{_size(counts['bytes'])}"
        )


if __name__ == "__main__":
    main()
