"""A run's folder as data: what was planned, what is done, scores, logs, ledgers.

``open_run`` reads the plan that the recipes write at their start. Everything else is read from
disk at the moment when it is asked for, so a run that is under way can be asked again and again.
A file that is missing, cut short or of an older version is no error here: what depends on it is
left out, and ``Run.problems`` says so in a sentence.

  WORK/plan/run.json          command, languages, domains, sizes, seeds, start, process
  WORK/plan/stages.json       every stage in the order of the chain; see data_prep.pipeline.graph
  WORK/plan/NAME.rows.tsv     rows of the table of a domain, with the columns of ``ROWS``; those
                              that differ in their seed alone are a group
  WORK/plan/NAME.steps.tsv    new, old, words: which groups are compared, and what lies between them
"""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.files import find_text, read_lines, sha256
from data_prep.manifest import read_json
from data_prep.pipeline.graph import PLAN, read_plan
from data_prep.pipeline.lock_holders import held
from data_prep.pipeline.stage import LOG, RECORD, beside
from data_prep.training_log import read_entries

SCORES = "scores.json"
SPEED = "speed.json"
LEDGER = "ledger.json"
GENERAL = "general"

ROWS = ("name", "group", "label", "model", "size", "configuration", "variant", "seed")
MULTI_DOMAIN = "multi-domain"  # among a variant's words: one student for all domains
PLAIN = "plain"  # the variant of a student that is nothing but its configuration
KINDS = {  # by configuration; all others are students of the domain, "1" to "9"
    "teacher": "teacher", "adapted-teacher": "teacher",
    "references": "general student", "distilled": "general student",
}  # fmt: skip
STUDENTS = tuple("123456789")

DONE, RUNNING, STOPPED, TO_COME = "done", "running", "stopped", "to come"


@dataclass(frozen=True)
class Stage:
    """A stage of the plan and how far it is.

    Attributes:
        number, title: as the screen shows them; several stages share a number.
        folder: relative to the run's folder.
        state: ``DONE``; ``RUNNING`` (a process holds its lock); ``STOPPED`` (half made, and no
            process at it: killed or failed); ``TO_COME``.
        seconds: that it took, or None.
        finished: ISO time in UTC, or None.
        record: what stage.json holds, {} where there is none.
    """

    number: int
    title: str
    folder: str
    state: str
    seconds: float | None = None
    finished: str | None = None
    record: dict = field(default_factory=dict, repr=False)

    @property
    def command(self):
        """Words of the command, [] while they are unknown."""
        return self.record.get("command", [])


@dataclass(frozen=True)
class Row:
    """A row of a domain's table: a model, and its scores where it has any.

    Attributes:
        name: of the row alone: "9", or of several seeds "9 (seed 2)".
        group: that it shares with the rows that differ in their seed alone: "9".
        label: what it was trained on: "general teacher's output, then ...".
        model: folder relative to the run's, such as "student/small/9/medical".
        size: name of its size.
        configuration: ``teacher``, ``adapted-teacher``, ``references``, ``distilled`` (general
            students), or "1" to "9" of the grid.
        variant: ``PLAIN``, or words joined by +: "word", "mixed+final".
        seed: of its training.
        domain: whose table it is.
        scores: what scores.json holds, or None while it is to come.
    """

    name: str
    group: str
    label: str
    model: str
    size: str
    configuration: str
    variant: str
    seed: int
    domain: str
    scores: dict | None = field(default=None, repr=False)

    @property
    def kind(self):
        """``teacher``, ``general student`` or ``student`` (of the domain: what may be shipped)."""
        return KINDS.get(self.configuration, "student")

    @property
    def is_general(self):
        """Whether it has seen no text of the domain."""
        return self.configuration in ("teacher", "references", "distilled")


@dataclass(frozen=True)
class Step:
    """Two groups, by name, and what was done to get from the old one to the new one."""

    new: str
    old: str
    words: str


@dataclass
class Curve:
    """What a training log tells.

    Attributes:
        validations: [{"update": float, "loss", "bleu", "bleu_greedy", "general_bleu_greedy", ...}]
            of the dev set that chose the checkpoint, by update.
        training: [{"update", "loss", ...}], one for each log interval.
        not_numbers: values that were NaN or infinite; they are left out of both.
        damaged: lines that could not be read.
    """

    validations: list = field(default_factory=list)
    training: list = field(default_factory=list)
    not_numbers: int = 0
    damaged: int = 0


class Run:
    """A run's folder.

    Attributes:
        work: the folder.
        plan: what plan/run.json holds.
        domains: names, in order.
        source_lang, target_lang: language codes.
        sizes: of the students, in order.
        problems: sentences about what could not be read so far; each once.
    """

    def __init__(self, work, plan):
        self.work = Path(work)
        self.plan = plan
        self.domains = list(plan["domains"])
        self.source_lang, self.target_lang = plan["source_lang"], plan["target_lang"]
        self.sizes = list(plan["sizes"])
        self.problems = []

    @property
    def asked(self):
        """(first, last) number of the stages that the recipe was last started for."""
        return self.plan.get("stages", (1, math.inf))

    def stages(self):
        """Every stage of the plan, as it is now."""
        return [self._stage(stage.number, stage.title, stage.out) for stage in read_plan(self.work)]

    def rows(self, domain):
        """Rows of a domain's table, those without scores too."""
        return [
            replace(row, scores=self._scores(domain, row.model))
            for row in read_rows(self.work / PLAN / f"{domain}.rows.tsv", domain)
        ]

    def steps(self, domain):
        """Which groups of a domain's table are compared."""
        path = self.work / PLAN / f"{domain}.steps.tsv"
        return [Step(*cells) for cells in _read_table(path, ("new", "old", "words"))]

    def speed(self, domain):
        """What dad-speed measured on a domain's test set, or None."""
        path = self.work / "speed" / domain / SPEED
        record = self.read(path)
        if record is not None and "models" not in record:
            self.note(f"{self.name_of(path)} is of an older dad-speed; measure again")
            return None
        return record

    def ledgers(self):
        """{folder: ledger} of every cleaning and selection of the plan that is done."""
        found = {}
        for stage in self.stages():
            for folder in (self.work / stage.folder, self.work / stage.folder / "text"):
                if (folder / LEDGER).exists() and (ledger := self.read(folder / LEDGER)):
                    if isinstance(ledger.get("steps"), list):
                        found[self.name_of(folder)] = ledger
                    else:
                        self.note(f"{self.name_of(folder / LEDGER)} is of an older version")
        return found

    def curve(self, model, subset="valid"):
        """The training log of a model, of one under way too; None where there is no log.

        Args:
            subset: whose validations are read.
        """
        folder = self.work / model
        for path in (folder / LOG, beside(folder, ".log")):
            if path.exists():
                curve = read_curve(path, subset)
                if curve.not_numbers:
                    self.note(f"{self.name_of(path)}: {curve.not_numbers:,} values are not numbers")
                if curve.damaged:
                    self.note(f"{self.name_of(path)}: {curve.damaged:,} lines cannot be read")
                return curve
        return None

    def dev(self, row):
        """{"bleu", "set"}: how the checkpoint that was kept did on the dev set; None: not known.

        ``bleu`` is of greedily decoded text, and of an averaged model that of its newest
        checkpoint; ``set`` is the SHA-256 of the dev set's references.
        """
        record = self.read(self.work / row.model / RECORD) or {}
        subset = "valid"
        if MULTI_DOMAIN in row.variant.split("+"):
            subset += "_" + row.domain.replace("-", "_")
        folder = _word_after(record.get("command", []), "--data")
        if subset != "valid":  # every domain's dev set by itself
            folder = f"corpora/{row.domain}/prepared"
        references = record.get("inputs", {}).get(f"{folder}/valid.{self.target_lang}", {})
        curve, kept = self.curve(row.model, subset), self.kept_update(row.model)
        found = [point for point in curve.validations if point["update"] == kept] if curve else []
        if not found or "bleu_greedy" not in found[0] or "sha256" not in references:
            return None
        return {"bleu": found[0]["bleu_greedy"], "set": references["sha256"]}

    def kept_update(self, model):
        """The update whose checkpoint was kept, or None."""
        record = self.read(self.work / model / "manifest.json") or {}
        return (record.get("counts") or {}).get("updates")

    def test_set(self, domain):
        """{"source", "references"}: paths of a test set, or None where it is missing."""
        folder = self.work / "corpora" / domain / "text"
        try:
            return {
                "source": find_text(folder, "test", self.source_lang),
                "references": find_text(folder, "test", self.target_lang),
            }
        except (FileNotFoundError, ValueError) as error:
            self.note(str(error))
            return None

    def translations(self, domain, model, test_set, mode="beam"):
        """Path of what a model of a domain's table made of a test set, or None."""
        path = self.scores_folder(domain, model) / f"{test_set}.{mode}.{self.target_lang}"
        return path if path.exists() else None

    def scores_folder(self, domain, model):
        return self.work / "scores" / domain / model

    def scored_on(self, row, test_set):
        """SHA-256 of the references that a row's scores of a test set rest on, or None."""
        record = self.read(self.scores_folder(row.domain, row.model) / RECORD) or {}
        ending = f"corpora/{test_set}/text/test.{self.target_lang}"
        for name, entry in record.get("inputs", {}).items():
            if name.endswith((ending, ending + ".gz", ending + ".zst")):
                return entry.get("sha256")
        return None

    def read(self, path):
        """A JSON file as a dictionary; None, and a note if it is damaged, where that fails."""
        path = Path(path)
        if not path.exists():
            return None
        try:
            record = read_json(path)
            if not isinstance(record, dict):
                raise ValueError("it holds no record")
            return record
        except (ValueError, OSError):
            self.note(f"{self.name_of(path)} is damaged and was left out")
            return None

    def note(self, sentence):
        """Remember what could not be read."""
        if sentence not in self.problems:
            self.problems.append(sentence)

    def name_of(self, path):
        """A path as people of this run know it, relative to its folder."""
        path = Path(path)
        return str(path.relative_to(self.work) if path.is_relative_to(self.work) else path)

    def _stage(self, number, title, folder):
        out = self.work / folder
        state = state_of(out)
        record = self.read(out / RECORD) or {} if state == DONE else {}
        return Stage(
            number, title, folder, state, record.get("seconds"), record.get("finished"), record
        )

    def _scores(self, domain, model):
        path = self.scores_folder(domain, model) / SCORES
        record = self.read(path)
        if record is not None and not isinstance(record.get("test_sets"), dict):
            self.note(f"{self.name_of(path)} holds no scores and was left out")
            return None
        return record


def open_run(work):
    """The run in folder ``work``.

    Raises:
        FileNotFoundError: there is no such folder, or nothing of a run in it.
        ValueError: it has no plan, or the plan is damaged.
    """
    work = Path(work)
    if not work.is_dir():
        raise FileNotFoundError(f"there is no folder {work}; name the --work of a recipe")
    path = work / PLAN / "run.json"
    if not path.exists():
        if not any((work / name).exists() for name in ("corpora", "vocabulary", "teacher")):
            raise FileNotFoundError(f"{work} holds no run; name the --work of a recipe")
        raise ValueError(
            f"{path} is missing, so this run is from before there were plans; start its recipe "
            "again with the same words, what is done is skipped"
        )
    plan = read_json(path)
    wanted = ("domains", "source_lang", "target_lang", "sizes")
    missing = [name for name in wanted if name not in plan]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; start the recipe again")
    return Run(work, plan)


def read_rows(path, domain):
    """The ``Row`` of every line of a plan's NAME.rows.tsv, without scores.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has other columns, or a cell that means nothing.
    """
    rows = []
    for number, cells in enumerate(_read_table(path, ROWS), start=2):
        row = Row(*cells, domain)
        if row.configuration not in (*KINDS, *STUDENTS):
            raise ValueError(
                f"{path}, line {number}: there is no configuration {row.configuration!r}, only "
                f"{', '.join((*KINDS, *STUDENTS))}"
            )
        if not row.seed.isdecimal():
            raise ValueError(f"{path}, line {number}: a seed is a number, not {row.seed!r}")
        rows.append(replace(row, seed=int(row.seed)))
    return rows


def chosen(domains, wanted, where):
    """Those of ``domains`` that are wanted: names joined by commas, or None for all.

    Args:
        where: what has these domains, for the error.

    Raises:
        ValueError: one is not among them.
    """
    names = domains if wanted is None else wanted.split(",")
    for name in names:
        if name not in domains:
            raise ValueError(f"there is no domain {name!r} in {where}, only {', '.join(domains)}")
    return names


def state_of(out):
    """State of the stage that makes folder ``out``."""
    half_made = beside(out, ".part").exists() or beside(out, ".log").exists()
    # the lock of a stage that is up to date is held for a moment, while that is found out
    if is_locked(out) and (half_made or not out.exists()):
        return RUNNING
    if half_made:
        return STOPPED
    return DONE if (out / RECORD).exists() else TO_COME


def is_locked(out):
    """Whether a process holds the lock of the stage that makes folder ``out``; takes no lock."""
    return bool(held([beside(out, ".lock")]))


def read_curve(path, subset="valid"):
    """The ``Curve`` of a training log; of a training that was resumed, the last word counts."""
    curve = Curve()
    validations, training = {}, {}
    with open(path, encoding="utf-8", errors="replace", newline="\n") as log:
        for line in log:
            try:
                entries = list(read_entries([line]))
            except json.JSONDecodeError:
                curve.damaged += 1
                continue
            for kind, entry in entries:
                if kind not in ("train_inner", subset):
                    continue
                entry = {name.removeprefix(f"{subset}_"): value for name, value in entry.items()}
                numbers = {
                    name: value for name, value in entry.items() if isinstance(value, float)
                }
                point = {name: value for name, value in numbers.items() if math.isfinite(value)}
                curve.not_numbers += len(numbers) - len(point)
                if "num_updates" in point:
                    update = point.pop("num_updates")
                    into = training if kind == "train_inner" else validations
                    into[update] = {**point, "update": update}
    curve.validations = [validations[update] for update in sorted(validations)]
    curve.training = [training[update] for update in sorted(training)]
    return curve


def file_hash(path):
    """SHA-256 of a file, or None where there is none."""
    return sha256(path) if path and Path(path).exists() else None


def _word_after(words, flag):
    return next((words[place + 1] for place, word in enumerate(words[:-1]) if word == flag), None)


def _read_table(path, columns):
    """Cells of a tab-separated file whose first line names ``columns``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has other columns, or a line has too many or too few cells.
    """
    rows = [line.split("\t") for line in read_lines(path)]
    if not rows or tuple(rows[0]) != columns:
        raise ValueError(
            f"{path} does not begin with a line of {', '.join(columns)}; start the recipe again "
            "with the same words, what is done is skipped"
        )
    for number, cells in enumerate(rows[1:], start=2):
        if len(cells) != len(columns):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} cells, not {len(columns)} between tabs"
            )
    return rows[1:]
