"""Make a teacher's n-best list ready for minimum-risk training: token ids and costs.

Reads what dad-generate --n-best N wrote, the source that it decoded and the references, and
writes a candidates folder for the criterion minimum_risk (fairseq-train --candidates OUT):

  candidates.bin .idx  token ids of the candidates, with the vocabulary of --data
  costs.npy            of each, 1 - sentence score / 100 against the reference: 0 is equal to it
  first.npy            where the list of each source line begins
  lists.npy            for each sentence of --data its list; -1: it has none
  manifest.json        what made it, and where every candidate has gone

Each sentence of --data gets the candidates of its own source line, also where dad-select has
left lines out, repeated or tagged them: the train.lines that it wrote tells the line numbers, and
every source sentence in the binaries is compared with the text. Candidates that are equal count
once; those without text or with more than --max-pieces pieces are left out. A sentence with fewer
than two candidates has nothing to choose between and gets none; it learns from its target alone.

The result does not depend on --workers. The folder is made in one go: after a kill, run the same
command again.

Examples:
  dad-generate --model teacher/medical --source corpora/medical/text/train.de \\
      --out decoded/train.en --beam 8 --n-best 8
  dad-candidates --data distilled/medical/medical/prepared --nbest decoded/train.en.nbest \\
      --source corpora/medical/text/train.de --references corpora/medical/text/train.en \\
      --metric chrf --out distilled/medical/medical/candidates
"""

import argparse
import functools
import itertools
import sys
import time
from array import array
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.command import parser, run
from data_prep.files import plain_name, read_lines, sha256, write_whole_folder
from data_prep.manifest import manifest_path, read_manifest, write_manifest
from data_prep.processes import in_processes, usable_cores
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.generation.nbest import is_nbest, read_nbest
from fairseq_plugins.selection.records import read_records
from fairseq_plugins.selection.scores import PAIRWISE, pairwise, signature
from fairseq_plugins.teachers.cache_format import data_fingerprint

PROG = "dad-candidates"
SPLITS = {"train": "train", "valid": "dev"}  # of a prepared folder, and their names as text
BATCH_LINES = 500
BATCHES_FOR_A_PROCESS = 8  # fewer are done before another process has started
PRELOAD = ["fairseq_plugins.selection.scores"]
LINES = "train.lines"  # written by dad-select: line number, tab, origin


def make_candidates(data, nbest, source, references, out, *, metric="chrf", split="train",
                    lines=None, reference_too=False, max_pieces=1022, workers=None,
                    overwrite=False):  # fmt: skip
    """Write the candidates folder ``out`` and return its counts; see the module's help.

    Args:
        data: prepared folder that the student is trained on.
        nbest: n-best file of dad-generate, plain, ``.gz`` or ``.zst``; so are the others.
        source: the text that was decoded.
        references: text, one line for each of ``source``.
        metric: "chrf" or "bleu".
        split: "train" or "valid" of ``data``.
        lines: line numbers of ``data``'s text in ``source``, as dad-select writes them; None:
            what lies beside the text that ``data`` was prepared from.
        reference_too: make the reference a candidate, the first, of cost 0.
        max_pieces: candidates of more pieces are left out.
        workers: processes; None: one for each usable core.
        overwrite: replace an ``out`` that exists.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    started = time.monotonic()
    _check_wishes(metric, split, max_pieces, workers)
    out, data = Path(out), Path(data)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; pass --overwrite to replace it, or name another")
    _check_nbest(nbest, reference_too)
    vocabulary = read_vocabulary(data)
    lines_file, numbers = line_numbers(data, split, vocabulary, lines)
    settings = {
        "metric": f"{metric}|{signature(metric, vocabulary.target_lang)}",
        "reference_too": reference_too,
        "max_pieces": max_pieces,
        "split": split,
        "prepared": str(data),
        "vocabulary": dict(vocabulary.files),
    }
    prepare = functools.partial(_prepare, vocabulary.folder, metric, reference_too, max_pieces)
    workers = workers or usable_cores()
    processes = max(1, min(workers, len(numbers) // (BATCH_LINES * BATCHES_FOR_A_PROCESS)))
    with write_whole_folder(out, replace=overwrite) as part, \
            in_processes(processes, PRELOAD) as apply:  # fmt: skip
        langs = (vocabulary.source_lang, vocabulary.target_lang)
        settings["data"] = data_fingerprint(data, split, *langs)
        counts = _write(part, data, split, vocabulary, numbers, apply, prepare,
                        (source, nbest, references))  # fmt: skip
        inputs = [nbest, source, references, manifest_path(data)]
        write_manifest(
            part, settings=settings, inputs=inputs + [lines_file] * (lines_file is not None),
            counts=counts, seconds=time.monotonic() - started,
        )  # fmt: skip
    return counts


# -- which line a sentence comes from ------------------------------------------------------


def line_numbers(data, split, vocabulary, lines=None):
    """(file of line numbers or None, line number in the source of each sentence of a split).

    Raises:
        FileNotFoundError, ValueError: the manifest or the file does not tell, or they do not
            belong together.
    """
    manifest = read_manifest(data)
    counts = manifest.get("counts", {}).get(SPLITS[split])
    if counts is None:
        raise ValueError(f"{manifest_path(data)} tells of no {split} set; prepare {data} with it")
    dropped = {number for reason in counts["dropped_lines"].values() for number in reason}
    kept = [number for number in range(1, counts["lines"] + 1) if number not in dropped]
    assert len(kept) == counts["pairs"], f"{manifest_path(data)} does not add up"
    if lines is None and split == "train":
        lines = _lines_beside_text(data, manifest, vocabulary.source_lang)
    if lines is None:
        return None, np.array(kept)
    numbers = _read_line_numbers(lines)
    if len(numbers) != counts["lines"]:
        raise ValueError(
            f"{lines} has {len(numbers):,} lines, but {data} was prepared from a text of "
            f"{counts['lines']:,}; prepare the folder again from the text beside {lines}"
        )
    return lines, numbers[np.array(kept) - 1]


def _lines_beside_text(data, manifest, source_lang):
    """The train.lines of dad-select beside the text of a prepared folder, or None."""
    for name, recorded in manifest["inputs"].items():
        text = Path(name)
        if plain_name(text) != f"train.{source_lang}":
            continue
        # a folder that was moved as a whole has the text where it was, seen from the binaries
        for folder in (text.parent, data.parent / text.parent.name):
            path, beside = folder / text.name, folder / LINES
            if not beside.exists() or not path.exists() or sha256(path) != recorded:
                continue
            # data_prep.clean writes line numbers too, of the raw text and without a tab
            if "\t" in next(read_lines(beside), ""):
                return beside
    return None


def _read_line_numbers(path):
    numbers = array("q")
    for place, line in enumerate(read_lines(path), start=1):
        number, tab, _ = line.partition("\t")
        lowest = numbers[-1] if numbers else 1
        if not tab or not number.isdecimal() or int(number) < lowest:
            raise ValueError(
                f"{path}, line {place}: expected a line number (from 1, never falling), a tab and "
                f"an origin, as dad-select writes them, found {line[:80]!r}"
            )
        numbers.append(int(number))
    return np.array(numbers)


# -- candidates and costs ------------------------------------------------------------------


def _prepare(folder, metric, reference_too, max_pieces, records):
    """[(source's token ids, candidates' token ids, costs, what became of them)] of records."""
    subwords, (src_dict, tgt_dict), tgt_lang = _vocabulary(folder)
    prepared = []
    for record in records:
        counts = Counter(candidates_read=len(record.candidates))
        texts = [candidate.text for candidate in record.candidates]
        if not record.reference.strip():
            counts["left_out_without_reference"] += len(texts)
            texts = []
        elif reference_too:
            texts = [record.reference, *texts]
            counts["references_added"] += 1
        distinct = {}  # token ids: text
        for text in texts:
            pieces = subwords.encode(text)
            ids = (*map(tgt_dict.index, pieces), tgt_dict.eos())
            if not pieces:
                counts["left_out_empty"] += 1
            elif len(pieces) > max_pieces:
                counts["left_out_too_long"] += 1
            elif ids in distinct:
                counts["left_out_duplicate"] += 1
            else:
                distinct[ids] = text
        if len(distinct) < 2:
            counts["left_out_alone"] += len(distinct)
            distinct = {}
        costs = []
        if distinct:
            scores = pairwise(metric, list(distinct.values()), [record.reference], tgt_lang)
            costs = np.clip(1 - scores[:, 0] / 100, 0, 1).tolist()
        src_ids = [*map(src_dict.index, subwords.encode(record.source)), src_dict.eos()]
        prepared.append((src_ids, list(distinct), costs, counts))
    return prepared


@functools.lru_cache(maxsize=1)
def _vocabulary(folder):
    """(subword model, dictionaries of source and target, target language), read once."""
    from fairseq.data import Dictionary

    vocabulary = read_vocabulary(folder)
    langs = (vocabulary.source_lang, vocabulary.target_lang)
    dictionaries = [Dictionary.load(str(vocabulary.dictionary(lang))) for lang in langs]
    return vocabulary.subwords(), dictionaries, vocabulary.target_lang


def _write(part, data, split, vocabulary, numbers, apply, prepare, texts):
    """Write the files of the folder, sentence after sentence; the counts."""
    import torch
    from fairseq.data import indexed_dataset

    from fairseq_plugins.data.candidates import COSTS, FIRST, LISTS, TOKENS

    langs = (vocabulary.source_lang, vocabulary.target_lang)
    prefix = str(data / f"{split}.{langs[0]}-{langs[1]}.{langs[0]}")
    sentences = indexed_dataset.MMapIndexedDataset(prefix)
    if len(sentences) != len(numbers):
        raise ValueError(
            f"{data} has {len(sentences):,} sentences in {split}, its manifest tells of "
            f"{len(numbers):,}; prepare the folder again"
        )
    _, (_, tgt_dict), _ = _vocabulary(vocabulary.folder)
    builder = indexed_dataset.MMapIndexedDatasetBuilder(
        str(part / f"{TOKENS}.bin"), indexed_dataset.best_fitting_int_dtype(len(tgt_dict))
    )
    used = np.unique(numbers)
    costs, first, lists = array("f"), array("q", [0]), np.full(len(numbers), -1)
    counts = Counter(lines=0)
    stream = _used_records(texts, used, counts)
    batches = iter(lambda: list(itertools.islice(stream, BATCH_LINES)), [])
    done = sentence = 0
    lowest = front = 0.0
    with tqdm(total=len(used), desc="candidates", unit=" lines", unit_scale=True) as bar:
        for batch in apply(prepare, batches):
            for src_ids, candidates, their_costs, what in batch:
                counts.update(what)
                if candidates:
                    for ids in candidates:
                        builder.add_item(torch.tensor(ids))
                    costs.extend(their_costs)
                    first.append(len(costs))
                    lowest += min(their_costs)
                    front += their_costs[0]
                while sentence < len(numbers) and numbers[sentence] == used[done]:
                    _check_source(sentences, sentence, src_ids, used[done], data, texts[0])
                    lists[sentence] = len(first) - 2 if candidates else -1
                    sentence += 1
                done += 1
            bar.update(len(batch))
    if done < len(used):
        raise ValueError(
            f"{texts[0]} has {counts['lines']:,} lines, but {data} was made from a text of at "
            f"least {used[-1]:,}; name the text that the teacher decoded"
        )
    filled = len(first) - 1
    if not filled:
        raise ValueError(
            f"no line of {texts[1]} has two candidates to choose between: {dict(counts)}"
        )
    builder.finalize(str(part / f"{TOKENS}.idx"))
    np.save(part / COSTS, np.array(costs, dtype=np.float32))
    np.save(part / FIRST, np.array(first, dtype=np.int64))
    np.save(part / LISTS, lists)
    return {
        **counts,
        "lines_used": len(used),
        "lists": filled,
        "sentences": len(numbers),
        "sentences_without_candidates": int((lists < 0).sum()),
        "candidates_kept": len(costs),
        "mean_cost": round(float(np.mean(costs)), 6),
        "mean_first_cost": round(front / filled, 6),
        "mean_lowest_cost": round(lowest / filled, 6),
    }


def _used_records(texts, used, counts):
    """Yield the records of the lines ``used`` (rising numbers); all lines are read and counted."""
    source, nbest, references = texts
    due = iter(used.tolist())
    number = next(due, None)
    for record in read_records(source, nbest, references):
        counts["lines"] += 1
        if record.number == number:
            number = next(due, None)
            yield record


def _check_source(sentences, sentence, src_ids, number, data, source):
    """Refuse a sentence whose source is not that line; a tag before it is none of its words."""
    if sentences[sentence].tolist()[-len(src_ids) :] != src_ids:
        raise ValueError(
            f"sentence {sentence + 1:,} of {data} is not line {number:,} of {source}: --source is "
            f"the text that the teacher decoded, and where lines were left out or repeated, "
            f"--lines FILE the {LINES} that dad-select wrote beside the text of {data}"
        )


# -- what is asked for ---------------------------------------------------------------------


def _check_wishes(metric, split, max_pieces, workers):
    if metric not in PAIRWISE:
        raise ValueError(f"--metric is one of {', '.join(PAIRWISE)}, not {metric}")
    if split not in SPLITS:
        raise ValueError(f"--split is one of {', '.join(SPLITS)}, not {split}")
    if max_pieces < 1:
        raise ValueError(f"--max-pieces is 1 or more, not {max_pieces}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers is 1 or more, not {workers}")


def _check_nbest(nbest, reference_too):
    if not is_nbest(nbest):
        raise ValueError(
            f"{nbest} is no n-best file, and with one translation a line there is nothing to "
            f"choose between; decode with dad-generate --n-best 8 and name the .nbest file"
        )
    if len(next(read_nbest(nbest))) < 2 and not reference_too:
        raise ValueError(
            f"{nbest} has one candidate a line, so there is nothing to choose between; decode "
            f"with dad-generate --n-best 8, or add the references with --reference-too"
        )


# -- the command ---------------------------------------------------------------------------


def summary(counts):
    """Two sentences for people: sentences and candidates, and what these cost."""
    left_out = ", ".join(
        f"{counts[key]:,} {key.removeprefix('left_out_').replace('_', ' ')}"
        for key in counts
        if key.startswith("left_out_") and counts[key]
    )
    sentences, without = counts["sentences"], counts["sentences_without_candidates"]
    return (
        f"{sentences - without:,} of {sentences:,} sentences have candidates, "
        f"{counts['candidates_kept']:,} different ones ({left_out or 'none'} left out). "
        f"Mean cost {counts['mean_cost']:.4f}, of the first candidates "
        f"{counts['mean_first_cost']:.4f}, of the best {counts['mean_lowest_cost']:.4f}"
    )


def main():
    run(_main, PROG)


def _main():
    args = vars(_arguments())
    counts = make_candidates(**args)
    print(f"{args['out']}: {summary(counts)}", file=sys.stderr)


def _arguments():
    words = parser(__doc__, PROG)
    required = {"required": True, "default": argparse.SUPPRESS}
    words.add_argument("--data", metavar="DIR", help="prepared folder of the student", **required)
    words.add_argument("--nbest", metavar="FILE", help="n-best file of dad-generate", **required)
    words.add_argument("--source", metavar="FILE", help="the text that was decoded", **required)
    words.add_argument(
        "--references", metavar="FILE", help="text, one line for each of --source", **required
    )
    words.add_argument("--out", metavar="DIR", help="candidates folder to make", **required)
    words.add_argument("--metric", choices=PAIRWISE, default="chrf",
                       help="sentence score by sacreBLEU's definition")  # fmt: skip
    words.add_argument("--split", choices=SPLITS, default="train",
                       help="of --data; with valid, training reports the risk of it")  # fmt: skip
    words.add_argument(
        "--lines", metavar="FILE",
        help=f"{LINES} of dad-select; unset: what lies beside the text that --data was made from",
    )  # fmt: skip
    words.add_argument("--reference-too", action="store_true",
                       help="make the reference a candidate, the first")  # fmt: skip
    words.add_argument("--max-pieces", type=int, default=1022, metavar="N",
                       help="longest candidate, in pieces")  # fmt: skip
    words.add_argument("--workers", type=int, metavar="N",
                       help="processes; unset: one for each usable core")  # fmt: skip
    words.add_argument("--overwrite", action="store_true", help="replace an existing folder")
    return words.parse_args()


if __name__ == "__main__":
    main()
