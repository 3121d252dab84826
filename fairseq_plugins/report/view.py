"""A run at one moment as a page for a terminal, with rich.

Every state stands there as a word, so colours (NO_COLOR turns them off) say nothing of their own.
"""

from itertools import groupby

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data_prep.pipeline.progress import left
from data_prep.pipeline.stage import duration
from fairseq_plugins.report.moment import FAILED, SILENT, covered
from fairseq_plugins.report.run import DONE, GENERAL, RUNNING, STOPPED, TO_COME

STYLES = {
    FAILED: "bold red", RUNNING: "bold cyan", STOPPED: "yellow", TO_COME: "dim", DONE: "green",
}  # fmt: skip
WORTH_SAYING = (FAILED, RUNNING, STOPPED)  # of stages that share a number, in this order
NUMBER, INDENT = 5, 7  # columns
WIDE = 100  # columns from which on there is room for what a model was trained on


class View:
    """The page of a ``Moment``, fitted into the width that there is.

    Args:
        moment: ``Moment``.
        whole: everything, however high; else what fits, the stages under way before all.
    """

    def __init__(self, moment, whole=False):
        self._moment, self._whole = moment, whole

    def __rich_console__(self, console, options):
        moment, width = self._moment, options.max_width
        if self._whole:
            yield from (_head(moment), Text(), _stages(moment, width), Text())
            yield _scores(moment, width)
            return
        room = options.height or console.height
        foot = Text("q or Ctrl-C leaves; the run goes on", style="dim")
        for folded in ((), (DONE,), (DONE, TO_COME)):
            parts = [_head(moment), Text(), _stages(moment, width, folded)]
            whole = Group(*parts, Text(), _scores(moment, width), foot)
            if _height(whole, console, options) <= room:
                yield whole
                return
        spare = room - _height(Group(*parts, Text(), foot), console, options)
        if spare >= 3:  # for a title, a header and a row
            parts += [Text(), _scores(moment, width, lines=spare)]
        yield Group(*parts, foot)


def _height(page, console, options):
    return len(console.render_lines(page, options.update(height=None), pad=False))


# -- head -----------------------------------------------------------------------------------------


def _head(moment):
    run, plan = moment.run, moment.run.plan
    what = [f"{run.source_lang} → {run.target_lang}", *run.domains]
    what.append(f"student {' and '.join(run.sizes)}")
    if plan.get("configurations"):
        what.append("configurations " + ", ".join(map(str, sorted(plan["configurations"]))))
    title = Text().append(str(run.work), "bold").append(": " + ", ".join(what))
    state = FAILED if moment.in_state(FAILED) else STOPPED if moment.is_still else None
    return Group(title, Text(standing(moment) + ".", style=STYLES.get(state, "")))


def standing(moment):
    """How far the run is, a sentence without its full stop."""
    if moment.is_finished:
        return "Finished" + (f" in {duration(moment.elapsed)}" if moment.elapsed else "")
    words = [f"{len(moment.in_state(DONE))} of {len(moment.stages)} steps done"]
    if failed := moment.in_state(FAILED):
        words.append(f"failed: {', '.join(stage.folder for stage in failed)}")
    if moment.is_still:
        what = "Once that is mended, start" if failed else "Start"
        words.append(f"nothing is running. {what} the same recipe again, it goes on from here")
    else:
        if moment.elapsed:
            words.append(f"{duration(moment.elapsed)} since the start")
        if left := moment.seconds_left():
            words.append(f"about {duration(left[0])} left")
            if left[1]:
                words.append(f"not counting {', '.join(left[1])} (not timed yet)")
    return ", ".join(words)


# -- stages ---------------------------------------------------------------------------------------


def _stages(moment, width, folded=()):
    """A line for each number of the plan, and more on stages that are half made.

    Args:
        folded: states; neighbours that are all in one of them share a line.
    """
    groups = [
        (number, title, list(members))
        for (number, title), members in groupby(
            moment.stages, lambda stage: (stage.number, stage.title)
        )
    ]
    lines = []
    for state, found in groupby(groups, lambda group: _common_state(group[2])):
        found = list(found)
        if state in folded and len(found) > 1:
            (first, begin, _), (last, end, _) = found[0], found[-1]
            members = [stage for *_, group in found for stage in group]
            lines.append(_line(f"{first}–{last}", f"{begin} … {end}", members, width))
            continue
        for number, title, members in found:
            lines.append(_line(number, _with_domain(title, members, moment), members, width))
            lines += [_stage(stage, width) for stage in members if stage.state in WORTH_SAYING]
    return Group(*lines)


def _common_state(stages):
    states = {stage.state for stage in stages}
    return states.pop() if len(states) == 1 else None


def _with_domain(title, stages, moment):
    """The title of stages, with the domain where a run has several."""
    if len(moment.run.domains) > 1:
        for domain in moment.run.domains:
            if all(domain in stage.folder.split("/") for stage in stages):
                return f"{title} ({domain})"
    return title


def _line(number, title, stages, width):
    """What stages of one number have come to."""
    states = [stage.state for stage in stages]
    done = states.count(DONE)
    state = next((state for state in WORTH_SAYING if state in states), None)
    state = state or (DONE if done == len(stages) else TO_COME)
    text = state
    if state == DONE:
        text += f" in {duration(covered(stage.span for stage in stages))}"
    if len(stages) > 1:
        is_begun = state in WORTH_SAYING or 0 < done < len(stages)
        text += f", {done} of {len(stages)} steps done" if is_begun else f", {len(stages)} steps"
    room = max(8, min(30, width - 40))
    title = title if len(title) <= room else title[: room - 1] + "…"
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{number:>{NUMBER}}  ", "dim").append(f"{title:<{room}}  ")
    return line.append(text, STYLES[state])


def _stage(stage, width):
    """A stage that is half made, with all that is known of it."""
    lasting = f" for {duration(stage.elapsed)}" if stage.elapsed is not None else ""
    head = Text().append(stage.folder, "bold")
    head.append(f"  {stage.state}{lasting}", STYLES[stage.state])
    parts, progress = [head], stage.progress
    if stage.state == RUNNING and progress.share is not None:
        bar = Table.grid(padding=(0, 1))
        bar.add_column(width=max(10, min(40, width - 44)))
        bar.add_row(_bar(progress.share), Text(left(progress), no_wrap=True))
        parts.append(bar)
    if progress.words and not stage.error:
        parts.append(Text(", ".join(progress.words)))
    if stage.silent > SILENT:
        parts.append(Text(f"it has said nothing for {duration(stage.silent)}", STYLES[STOPPED]))
    if stage.error:
        parts.append(Text(stage.error, STYLES[FAILED]))
    if stage.state != RUNNING:
        parts.append(Text(f"what it printed: {stage.folder}.log", "dim"))
    return Padding(Group(*parts), (0, 0, 0, INDENT), expand=False)


def _bar(share):
    return ProgressBar(100, 100 * share, complete_style="cyan", finished_style="cyan")


# -- scores ---------------------------------------------------------------------------------------


def _scores(moment, width, lines=None):
    """For each domain a table of what finished models score.

    Args:
        lines: that there is room for, at least 3; then only the last models of the last domain.
    """
    tables = []
    for domain, rows in moment.rows.items():
        known = [row for row in rows if row.scores or row.model in moment.dev]
        if known:
            scored = sum(1 for row in rows if row.scores)
            title = Text(f"BLEU so far, {scored} of {len(rows)} models scored")
            shown = known[2 - lines :] if lines else known
            tables.append(Group(title, _table(moment, domain, shown, width)))
    if lines or not tables:
        return Padding(Group(*tables[-1:]), (0, 0, 0, INDENT), expand=False)
    legend = Text("dev: greedy, on the model's own dev set; ±: half of the 95 % interval", "dim")
    return Padding(Group(*tables, legend), (0, 0, 0, INDENT), expand=False)


def _table(moment, domain, rows, width):
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("model", no_wrap=True, overflow="ellipsis")
    if width >= WIDE:
        table.add_column("trained on", no_wrap=True, overflow="ellipsis", max_width=width - 66)
    test_sets = (domain, GENERAL) if any(row.scores for row in rows) else ()
    for name in ("dev", *test_sets):
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        dev = moment.dev.get(row.model)
        cells = [row.name, *([row.label] if width >= WIDE else [])]
        cells.append("" if dev is None else f"{dev:.1f}")
        table.add_row(*map(Text, [*cells, *(bleu(row, name) for name in test_sets)]))
    return table


def bleu(row, test_set):
    """BLEU of a row with its interval; '' where scores.json has none."""
    try:
        found = row.scores["test_sets"][test_set]["beam"]["bleu"]
        return f"{found['score']:.1f} ± {found['interval']:.1f}"
    except (TypeError, KeyError, ValueError):
        return ""
