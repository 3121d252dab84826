"""What is known of this machine's speed: a calibration, the run's finished stages, or a reference.

A calibration of another machine is never used without saying so.
"""

import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.files import read_lines
from data_prep.manifest import read_json
from data_prep.model_sizes import SIZES
from data_prep.pipeline.calibration import place, was_busy
from data_prep.pipeline.estimate import flags
from data_prep.pipeline.rates import Rates, Speed, read_rates
from data_prep.pipeline.stage import LOG, RECORD
from data_prep.training_log import read_entries

REFERENCES = Path(__file__).resolve().parents[2] / "recipes" / "calibration"
MEASURED, OBSERVED, ELSEWHERE = 1.25, 1.4, 2.0  # by what factor estimates may be off


@dataclass(frozen=True)
class Known:
    """``Rates`` or None, how they are known in ``words``, and ``notes`` of what was not used."""

    rates: Rates | None
    words: str
    notes: tuple = ()
    is_calibrated: bool = False


def find(stages, about, vocabulary):
    """``Known`` for a machine; relative paths are those of the run's folder.

    Args:
        stages: ``PlannedStage`` of the plan, whose finished ones are looked at.
        about: this machine, as ``manifest.machine`` tells.
        vocabulary: pieces of the plan's vocabulary.
    """
    notes = []
    if place().exists():
        record = read_json(place())
        if same_machine(record.get("machine", {}), about):
            words = f"as dad-calibrate measured it on this machine ({record['date']})"
            if was_busy(record):
                notes.append("The machine was busy with other work while it was measured; alone "
                             "it is faster. dad-calibrate measures it anew.")  # fmt: skip
            return Known(read_rates(place(), words, MEASURED), words, tuple(notes), True)
        notes.append(f"{place()} is of another machine ({in_words(record.get('machine', {}))}), "
                     "so it is not used.")  # fmt: skip
    reference, told = _reference(about)
    observed = _observed(stages, about, vocabulary)
    if reference and (observed.training or observed.decoding):
        words = "as the finished stages of this run had it"
        return Known(_scaled(reference, observed, words), words, tuple(notes))
    if reference is None:
        return Known(None, "is not known: nothing was measured", tuple(notes))
    if about["gpus"] and reference.device != "cuda":
        return Known(reference, f"of the {about['gpus'][0]} is not known: nobody has measured "
                     "it. What needs no model is taken as on " + told, tuple(notes))  # fmt: skip
    return Known(reference, f"as on another machine, {told}: yours may be twice as fast or half",
                 tuple(notes))  # fmt: skip


def same_machine(one, other):
    """Whether two descriptions are of machines that run alike."""
    return all(one.get(key) == other.get(key) for key in ("cpu", "cores", "gpus"))


def in_words(about):
    """A machine in few words."""
    gpus = about.get("gpus") or []
    cores = f"{about.get('cores', '?')} cores of an {about.get('cpu', 'unknown processor')}"
    return f"{len(gpus)} × {gpus[0]}, {cores}" if gpus else cores


def _reference(about):
    """(``Rates``, machine in words) of the shipped calibration that is nearest, or (None, "")."""
    found = []
    for path in sorted(REFERENCES.glob("*.json")):
        record = read_json(path)
        like = sum(about[key] == record["machine"].get(key) for key in ("cpu", "cores", "gpus"))
        found.append((bool(about["gpus"]) == bool(record["machine"]["gpus"]), like, path, record))
    if not found:
        return None, ""
    _, _, path, record = max(found, key=lambda entry: entry[:2])
    told = f"{in_words(record['machine'])}, {record['date']}"
    if was_busy(record):
        told += ", busy with other work"
    return read_rates(path, told, ELSEWHERE), told


def _observed(stages, about, vocabulary):
    """``Rates`` of the models that finished stages trained and decoded with."""
    training, decoding = {}, {}
    for stage in stages:
        folder = Path(stage.out)
        if stage.kind not in ("train", "distil") or not (folder / RECORD).exists():
            continue
        record = read_json(folder / RECORD)
        if "machine" in record and not same_machine(record["machine"], about):
            continue
        words = flags(record["command"])
        plain = not {"--loss", "--adapt"} & words.keys()
        if stage.kind == "train" and plain and (speed := _speed_of_training(folder / LOG)):
            key = words.get("--size"), vocabulary, 1
            training.setdefault(words.get("--precision", "fp32"), {}).setdefault(key, []).append(
                speed
            )
        for path in (folder / "decoded").glob("*.manifest.json"):
            made = read_json(path)
            teacher = read_json(Path(words["--teacher"]) / RECORD)["command"] \
                if (Path(words.get("--teacher", "")) / RECORD).exists() else []  # fmt: skip
            settings, counts = made["settings"], made["counts"]
            size = flags(teacher).get("--size")
            if size in SIZES and counts.get("tokens"):
                kind = settings["backend"], settings["compute_type"]
                key = size, vocabulary, settings["beam"] or 1
                decoding.setdefault(kind, {})[key] = counts["decode_seconds"] / counts["tokens"]
    return Rates(
        "", OBSERVED, "cuda" if about["gpus"] else "cpu",
        {name: Speed({key: statistics.median(speeds) for key, speeds in found.items()
                      if key[0] in SIZES}) for name, found in training.items()},
        {name: Speed(found) for name, found in decoding.items()},
    )  # fmt: skip


def _speed_of_training(log):
    """Seconds for a target token, the median of a training's log; None: it does not say."""
    if not log.exists():
        return None
    rates = [entry["wps"] for kind, entry in read_entries(read_lines(log))
             if kind == "train_inner" and entry.get("wps")]  # fmt: skip
    return 1 / statistics.median(rates) if rates else None


def _scaled(reference, observed, words):
    """The reference with what was observed in its place, and the rest scaled to that."""
    if reference.device != observed.device:
        return replace(observed, basis=words, text=reference.text, start=reference.start)
    return replace(
        reference, basis=words, spread=OBSERVED,
        training=_scale(reference.training, observed.training),
        decoding=_scale(reference.decoding, observed.decoding),
    )  # fmt: skip


def _scale(reference, observed):
    ratios = [
        math.log(seconds / expected)
        for kind, speed in observed.items() for key, seconds in speed.measured.items()
        if kind in reference and (expected := reference[kind].seconds(*key))
    ]  # fmt: skip
    factor = math.exp(statistics.mean(ratios)) if ratios else 1.0
    scaled = {}
    for kind, speed in reference.items():
        seen = observed[kind].measured if kind in observed else {}
        seen_sizes = {key[0] for key in seen}
        rest = {key: factor * seconds for key, seconds in speed.measured.items()
                if key[0] not in seen_sizes}  # fmt: skip
        scaled[kind] = Speed(rest | seen)
    return scaled | {kind: speed for kind, speed in observed.items() if kind not in reference}
