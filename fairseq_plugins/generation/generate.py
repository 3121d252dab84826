"""Translate a text file: one line out for each line in, in order, none missing.

Models are MODEL folders (dad-keep-weights) or one EXPORTED folder (dad-export);
several MODEL folders decode together as an ensemble. Killed at any moment, the same
command goes on where it was and ends with the same bytes. Work in progress lies in
OUT.part; OUT and OUT.manifest.json appear when all is done.

An empty line gives an empty line. A line with more pieces than --max-source-pieces is
cut there, or gives an empty line (--on-long). Both are counted. A translation has at
most twice the pieces of its source (rounded up to 8, 16, 32 ...) and 10 more.
The unknown piece is never generated.

Examples:
  dad-generate --model teacher/general --source train.de --out distilled/train.en
  dad-generate --model teacher/a teacher/b --source test.de.gz --out test.en --beam 12
"""

import itertools
import os
import sys
import time
from collections import deque
from pathlib import Path

from tqdm import tqdm

from data_prep.command import parser, run
from data_prep.files import read_lines, sha256
from data_prep.manifest import manifest_path, read_json, write_manifest
from fairseq_plugins.export.weights import add_checkpoint_flags
from fairseq_plugins.generation.backends import (
    AS_SAVED,
    BACKENDS,
    COMPUTE_TYPES,
    DEVICES,
    choose,
)
from fairseq_plugins.generation.decoding import Decoding
from fairseq_plugins.generation.models import check_ensemble, open_model
from fairseq_plugins.generation.workfolder import WorkFolder, differences

PROG = "dad-generate"

MAX_SOURCE_PIECES = 250
SHARD_LINES = 2000
SHARDS_AHEAD = 2  # so that workers have the next shard while the last batch of one ends


def generate(
    models, source, out, *, backend="auto", device="auto", compute_type=None,
    beam=5, length_penalty=1.0, max_length=None, max_source_pieces=None, on_long="truncate",
    batch_tokens=None, shard_lines=SHARD_LINES, workers=None, threads=1,
    trust=False, allow_unknown_vocabulary=False, overwrite=False,
):  # fmt: skip
    """Translate the lines of ``source`` into file ``out``; return the manifest, a dictionary.

    Args:
        models: list of MODEL folders, or of one EXPORTED folder.
        source: UTF-8 text, plain or ``.gz``.
        out: file to make; ``OUT.part`` is the work folder, ``OUT.manifest.json`` the manifest.
        backend: "ctranslate2", "fairseq" or "auto" (ctranslate2 where it can).
        device: "cpu", "cuda" or "auto".
        compute_type: how to compute; None: float32 on CPU, float16 on GPU, and what
            it was saved with for an EXPORTED folder.
        beam: hypotheses kept at each step, 1 is greedy.
        length_penalty: exponent of the length by which scores are divided.
        max_length: most pieces of a translation; None: 2 × source + 10, rounded up.
        max_source_pieces: most pieces of a source line; None: 250, or what the model can read.
        on_long: "truncate" a longer line, or make its translation "empty".
        batch_tokens: most source pieces in a batch; None: by backend and device.
        shard_lines: lines that are kept or lost together when the run is killed.
        workers: batches decoded at once; None: a worker for each usable core (1 on a GPU).
        threads: threads for each worker.
        trust: unpickle whatever a checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a vocabulary fingerprint.
        overwrite: replace an ``out`` that was made otherwise.

    Returns:
        the manifest; "counts" has lines, empty_sources, too_long, empty_outputs (of lines
        that were decoded), sentences_per_second (decoding alone), load_seconds, ...

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    started = time.monotonic()
    source, out = Path(source), Path(out)
    _check_numbers(
        beam=beam, max_length=max_length, max_source_pieces=max_source_pieces,
        batch_tokens=batch_tokens, shard_lines=shard_lines, workers=workers, threads=threads,
    )  # fmt: skip
    if on_long not in ("truncate", "empty"):
        raise ValueError(f"--on-long is truncate or empty, not {on_long}")
    _check_place(source, out)
    found = [open_model(path, trust, allow_unknown_vocabulary) for path in models]
    check_ensemble(found)
    lines = _count(source)
    chosen = choose(found, backend=backend, device=device, compute_type=compute_type, trust=trust)
    decoding = Decoding(
        beam, length_penalty, max_length, batch_tokens or chosen.default_batch_tokens
    )
    workers = workers or (_usable_cores() if chosen.device == "cpu" else 1)
    identity = {
        "source": {"sha256": sha256(source), "lines": lines},
        "models": [model.files for model in found],
        "backend": chosen.name,
        "device": chosen.device,
        "compute_type": chosen.compute_type,
        "beam": beam,
        "length_penalty": length_penalty,
        "max_length": max_length,
        "max_source_pieces": max_source_pieces,
        "on_long": on_long,
        "batch_tokens": decoding.batch_tokens,
        "shard_lines": shard_lines,
    }
    work = WorkFolder(out, identity)
    try:
        with work.locked():
            if _is_done(work, overwrite):
                _say(f"{out} is there already, made from the same text, model and settings")
                work.clear()  # a kill at the very end may have left some of it
                return read_json(manifest_path(out))
            for change in work.open():
                _say(f"{work.path}: starting afresh, because {change}")
            shards = -(-lines // shard_lines)
            missing = _missing_shards(work, lines, shard_lines)
            load_seconds = 0.0
            if missing:
                loading = time.monotonic()
                decoder = chosen.load(work.path, decoding, workers=workers, threads=threads)
                load_seconds = time.monotonic() - loading
                longest = _longest_source(max_source_pieces, decoder.source_positions)
                encoder = Encoder(found[0].vocabulary.subwords(), longest, on_long)
                _decode(work, decoder, encoder, source, lines, shard_lines, missing)
            merged, counts, seconds = work.merge(shards)
            _check_complete(merged, lines, counts)
            counts["load_seconds"] = round(load_seconds, 3)
            counts["decode_seconds"] = round(seconds, 3)
            counts["sentences_per_second"] = round(lines / seconds, 2) if seconds else None
            write_manifest(
                merged,
                settings={**identity, "workers": workers, "threads": threads},
                inputs=[source, *(model.weights for model in found)],
                counts=counts,
                seconds=time.monotonic() - started,
                outputs={out.name: sha256(merged)},
            )
            work.finish(merged)
    except OSError as error:
        # a write that fails half-way (disk full) does not say where
        if error.errno and error.filename is None:
            error.filename = str(work.path)
        raise
    return read_json(manifest_path(out))


class Encoder:
    """Source lines to piece lists, under the policies for empty and over-long lines.

    Args:
        subwords: the model's ``Subwords``.
        longest: most pieces of a line.
        on_long: "truncate" or "empty".
    """

    def __init__(self, subwords, longest, on_long):
        self.subwords, self.longest, self.on_long = subwords, longest, on_long

    def encode(self, lines):
        """Piece lists of the lines, empty for those not to be decoded, and counts."""
        counts = {"lines": len(lines), "empty_sources": 0, "too_long": 0}
        encoded = self.subwords.encode_batch([line.strip() for line in lines])
        for index, pieces in enumerate(encoded):
            if not pieces:
                counts["empty_sources"] += 1
            elif len(pieces) > self.longest:
                counts["too_long"] += 1
                encoded[index] = pieces[: self.longest] if self.on_long == "truncate" else []
        return encoded, counts

    def decode(self, pieces):
        """Text of a translation, one line whatever the model wrote."""
        return self.subwords.decode(pieces)


def _decode(work, decoder, encoder, source, lines, shard_lines, missing):
    """Decode the shards named in ``missing`` and store each as soon as it is whole."""
    kept = lines - sum(min(shard_lines, lines - number * shard_lines) for number in missing)
    if kept:
        _say(f"{work.path}: going on after {kept:,} of {lines:,} lines")
    on_screen = sys.stderr.isatty()
    bar = tqdm(
        total=lines, initial=kept, unit=" sentences", smoothing=0.1, unit_scale=False,
        mininterval=0.5 if on_screen else 30, dynamic_ncols=on_screen, desc=work.out.name,
    )  # fmt: skip
    pending = deque()
    clock = time.monotonic()

    def store_first():
        nonlocal clock
        number, encoded, counts, collect = pending.popleft()
        translated = iter(collect(bar.update))
        bar.update(sum(not pieces for pieces in encoded))
        texts = [encoder.decode(next(translated)) if pieces else "" for pieces in encoded]
        counts["empty_outputs"] = sum(
            not text for pieces, text in zip(encoded, texts, strict=True) if pieces
        )
        now = time.monotonic()
        work.store(number, texts, counts, now - clock)
        clock = now

    with bar:
        for number, shard in enumerate(_shards(source, shard_lines)):
            if number not in missing:
                continue
            encoded, counts = encoder.encode(shard)
            collect = decoder.submit([pieces for pieces in encoded if pieces])
            pending.append((number, encoded, counts, collect))
            if len(pending) == SHARDS_AHEAD:
                store_first()
        while pending:
            store_first()


def _shards(source, shard_lines):
    lines = read_lines(source)
    while shard := list(itertools.islice(lines, shard_lines)):
        yield shard


def _missing_shards(work, lines, shard_lines):
    missing = set()
    for number in range(-(-lines // shard_lines)):
        expected = min(shard_lines, lines - number * shard_lines)
        if work.finished(number, expected) is None:
            missing.add(number)
            if work.was_begun(number):
                _say(f"{work.path}: shard {number} is damaged or unfinished; decoding it again")
    return missing


def _is_done(work, overwrite):
    """Whether ``out`` is what this decoding would make.

    Raises:
        FileExistsError: it is something else, and may not be overwritten.
    """
    out, manifest = work.out, manifest_path(work.out)
    if not out.exists():
        return False
    record = read_json(manifest) if manifest.exists() else None
    if record is None:
        # a kill between the two renames at the end leaves the text, and the folder, in place
        if work.has_settings() or overwrite:
            return False
        raise FileExistsError(
            f"{out} exists and has no manifest, so what made it is unknown; "
            f"pass --overwrite to replace it"
        )
    was = {name: record.get("settings", {}).get(name) for name in work.identity}
    changes = differences(was, work.identity)
    if not changes and record.get("outputs", {}).get(out.name) != sha256(out):
        changes = ["its text was changed after it was made"]
    if not changes:
        return True
    if overwrite:
        return False
    raise FileExistsError(
        f"{out} exists and is not what this command would make: {'; '.join(changes)}; "
        f"pass --overwrite to replace it"
    )


def _check_complete(merged, lines, counts):
    with open(merged, "rb") as file:
        written = sum(1 for _ in file)
    if not written == lines == counts["lines"]:
        raise ValueError(
            f"{lines:,} lines in, but {written:,} out; the source was changed during the run. "
            f"Run again"
        )


def _check_place(source, out):
    if not source.exists():
        raise FileNotFoundError(f"source {source} is missing")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out names the file to write")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} for {out.name} is missing; make it first")
    if not os.access(out.parent, os.W_OK):
        raise PermissionError(f"folder {out.parent} is not writable")
    if out.exists() and out.samefile(source):
        raise ValueError(f"--source and --out are the same file, {out}")


def _count(source):
    lines = sum(1 for _ in read_lines(source))
    if not lines:
        raise ValueError(f"{source} is empty; there is nothing to translate")
    return lines


def _longest_source(wanted, positions):
    limit = positions - 1  # one is for the end of sentence
    if wanted is None:
        return min(MAX_SOURCE_PIECES, limit)
    if wanted > limit:
        raise ValueError(
            f"--max-source-pieces {wanted} is more than the {limit} the model can read"
        )
    return wanted


def _check_numbers(**numbers):
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is 1 or more, not {value}")


def _usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    run(_main, PROG)


def _main():
    args = vars(_arguments())
    out = args["out"]
    record = generate(
        args.pop("model"), args.pop("source"), args.pop("out"),
        trust=args.pop("trust_checkpoint"), **args,
    )  # fmt: skip
    counts = record["counts"]
    speed = counts["sentences_per_second"]
    _say(
        f"{out}: {counts['lines']:,} lines ({counts['empty_sources']:,} empty, "
        f"{counts['too_long']:,} too long: {record['settings']['on_long']}, "
        f"{counts['empty_outputs']:,} with an empty translation); "
        f"{speed or 0:,.0f} sentences/s, {record['settings']['backend']}, "
        f"{record['settings']['compute_type'].replace(AS_SAVED, 'computed as saved')}, "
        f"beam {record['settings']['beam']}"
    )


def _arguments():
    words = parser(__doc__, PROG)
    words.add_argument(
        "--model", required=True, nargs="+", metavar="DIR",
        help="MODEL folder, several for an ensemble, or one EXPORTED folder",
    )  # fmt: skip
    words.add_argument("--source", required=True, metavar="FILE", help="UTF-8 text, plain or .gz")
    words.add_argument("--out", required=True, metavar="FILE", help="file of translations to make")
    words.add_argument(
        "--overwrite", action="store_true", help="replace an OUT that was made otherwise"
    )

    search = words.add_argument_group("search")
    search.add_argument("--beam", type=int, default=5, metavar="N", help="1 is greedy")
    search.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="X",
        help="scores are divided by length to this power; more favours longer translations",
    )  # fmt: skip
    search.add_argument(
        "--max-length", type=int, metavar="N",
        help="most pieces of a translation, instead of 2 × source + 10 rounded up",
    )  # fmt: skip
    search.add_argument(
        "--max-source-pieces", type=int, metavar="N",
        help=f"most pieces of a source line; unset: {MAX_SOURCE_PIECES}, "
        f"or what the model can read",
    )  # fmt: skip
    search.add_argument(
        "--on-long", choices=["truncate", "empty"], default="truncate",
        help="what to do with a longer line: translate its beginning, or leave it empty",
    )  # fmt: skip

    speed = words.add_argument_group("speed")
    speed.add_argument("--backend", choices=["auto", *BACKENDS], default="auto",
                       help="auto: ctranslate2 for a single transformer, else fairseq")  # fmt: skip
    speed.add_argument("--device", choices=["auto", *DEVICES], default="auto",
                       help="auto: a GPU where the backend finds one")  # fmt: skip
    speed.add_argument(
        "--compute-type", choices=COMPUTE_TYPES,
        help="unset: float32 on CPU, float16 on GPU, and for an EXPORTED folder what it was "
        "saved with; int8 is fastest on CPU",
    )  # fmt: skip
    speed.add_argument("--workers", type=int, metavar="N",
                       help="batches decoded at once; unset: one for each usable core")  # fmt: skip
    speed.add_argument("--threads", type=int, default=1, metavar="N", help="for each worker")
    speed.add_argument("--batch-tokens", type=int, metavar="N",
                       help="most source pieces in a batch; unset: by backend")  # fmt: skip
    speed.add_argument(
        "--shard-lines", type=int, default=SHARD_LINES, metavar="N",
        help="lines that are kept or lost together when the run is killed",
    )  # fmt: skip
    add_checkpoint_flags(words)
    return words.parse_args()


if __name__ == "__main__":
    main()
