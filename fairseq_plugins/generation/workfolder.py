"""The work folder of a decoding, ``OUT.part``: finished shards, their hashes, who does what.

A shard is a fixed number of source lines. ``000042.txt`` holds its translations, ``000042.nbest``
all candidates where more than one was asked for, and ``000042.json`` their SHA-256 and counts;
that file is written last, so a shard without it, or with another hash, is not finished.
``000042.partial.json`` is what an interrupted run kept of an unfinished shard.
``settings.json`` tells which text, model and settings the shards belong to. Any number of
processes may work in the folder, see ``fairseq_plugins.shared_folder``.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

from data_prep.files import sha256, write_whole
from data_prep.manifest import manifest_path, read_json, write_json
from fairseq_plugins.generation.nbest import format_candidates
from fairseq_plugins.generation.policies import LEDGER_HEADER, count_special
from fairseq_plugins.shared_folder import SharedFolder

TEXT, NBEST, LEDGER = "text", "nbest", "ledger"
_CONVERSION = 1 << 30  # the byte of claims that stands for converting the model


def output_paths(out):
    """Where the outputs of a decoding go, by kind."""
    out = Path(out)
    return {
        TEXT: out,
        NBEST: out.with_name(out.name + ".nbest"),
        LEDGER: out.with_name(out.name + ".ledger.tsv"),
    }


class WorkFolder(SharedFolder):
    """Finished shards of the decoding that will become file ``out``.

    Args:
        out: path of the final file; the folder is ``OUT.part`` beside it.
    """

    def __init__(self, out):
        self.out = Path(out)
        super().__init__(self.out.with_name(self.out.name + ".part"), "[0-9]*")

    @contextlib.contextmanager
    def converting(self):
        """Hold what lets one process at a time convert the model."""
        self._lock_byte(_CONVERSION, fcntl.LOCK_EX)
        try:
            yield self.path / "exported"
        finally:
            self._lock_byte(_CONVERSION, fcntl.LOCK_UN)

    # -- shards ------------------------------------------------------------------------------

    def finished(self, number, lines):
        """Record of shard ``number`` if it is whole and has so many lines, else None."""
        record = self._file(number, "json")
        if not record.exists():
            return None
        try:
            found = read_json(record)
            whole = found["counts"]["lines"] == lines and all(
                sha256(self._file(number, kind)) == digest
                for kind, digest in found["sha256"].items()
            )
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            return None
        return found if whole else None

    def was_begun(self, number):
        """Whether a finished shard ``number`` should lie there."""
        return any(self._file(number, kind).exists() for kind in ("txt", "nbest", "json"))

    def store(self, number, candidates, rows, *, n_best, first_line, tokens, seconds):
        """Write a finished shard.

        Args:
            candidates: list of ``n_best`` ``Candidate`` for every line.
            rows: list of ``LedgerRow``.
            first_line: number of its first line, from 0.
            tokens: target pieces that were generated.
            seconds: time that it took.
        """
        self._file(number, "json").unlink(missing_ok=True)
        with write_whole(self._file(number, "txt")) as out:
            out.writelines(best.text + "\n" for best, *_ in candidates)
        kinds = ["txt"]
        if n_best > 1:
            kinds.append("nbest")
            with write_whole(self._file(number, "nbest")) as out:
                for line, found in enumerate(candidates, start=first_line):
                    out.write(format_candidates(line, found))
        write_json(
            self._file(number, "json"),
            {
                "counts": {"lines": len(candidates), **count_special(rows), "tokens": tokens},
                "seconds": round(seconds, 3),
                "special": rows,
                "sha256": {kind: sha256(self._file(number, kind)) for kind in kinds},
            },
        )
        self._file(number, "partial.json").unlink(missing_ok=True)

    def store_partial(self, number, candidates):
        """Keep what is done of a shard; ``candidates`` has None for lines that are not."""
        text = json.dumps(candidates)
        write_json(self._file(number, "partial.json"), {"sha256": _digest(text), "found": text})

    def partial(self, number, lines):
        """What :meth:`store_partial` kept of a shard of so many lines, or None."""
        path = self._file(number, "partial.json")
        try:
            kept = read_json(path)
            found = json.loads(kept["found"])
            whole = kept["sha256"] == _digest(kept["found"]) and len(found) == lines
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            return None
        return found if whole else None

    def merge(self, shards):
        """Join the first ``shards`` shards in order.

        Returns:
            {kind: merged file}, sums of the counts, seconds of decoding.
        """
        counts, seconds, has_rows = Counter(), 0.0, False
        merged = {TEXT: self.path / "merged"}
        ledger = self.path / "merged.ledger.tsv"
        with contextlib.ExitStack() as stack:
            files = {}
            for number in range(shards):
                found = read_json(self._file(number, "json"))
                counts.update(found["counts"])
                seconds += found["seconds"]
                for kind in found["sha256"]:
                    if kind not in files:
                        name = TEXT if kind == "txt" else NBEST
                        merged[name] = self.path / ("merged" if name == TEXT else "merged.nbest")
                        files[kind] = stack.enter_context(open(merged[name], "wb"))
                    with open(self._file(number, kind), "rb") as shard:
                        shutil.copyfileobj(shard, files[kind])
                if found["special"]:
                    if not has_rows:
                        rows = stack.enter_context(open(ledger, "w", encoding="utf-8"))
                        rows.write(LEDGER_HEADER)
                        merged[LEDGER], has_rows = ledger, True
                    rows.writelines("\t".join(map(str, row)) + "\n" for row in found["special"])
            for file in (*files.values(), *([rows] if has_rows else [])):
                file.flush()
                os.fsync(file.fileno())
        return merged, dict(counts), seconds

    def finish(self, merged):
        """Give outputs and manifest their final names and empty the folder."""
        paths = output_paths(self.out)
        for kind in (NBEST, LEDGER, TEXT):
            if kind in merged:
                os.replace(merged[kind], paths[kind])
            else:
                paths[kind].unlink(missing_ok=True)  # of an output that was made otherwise
        os.replace(manifest_path(merged[TEXT]), manifest_path(self.out))
        self.clear()

    def _file(self, number, kind):
        return self.path / f"{number:06d}.{kind}"


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
