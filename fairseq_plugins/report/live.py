"""The live view of a run: in a terminal a page that is drawn again and again, elsewhere lines.

The states stand there as words, so colours (NO_COLOR turns them off) add nothing that is not said.
"""

import contextlib
import os
import select
import sys
import time
from itertools import chain, groupby

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data_prep.stage import duration
from fairseq_plugins.report.moment import FAILED, SILENT, Watcher, covered
from fairseq_plugins.report.run import DONE, GENERAL, RUNNING, STOPPED, TO_COME

SECONDS_BETWEEN_LOOKS = 2
SECONDS_BETWEEN_LINES = 60  # about a stage of which only the counts have changed
SECONDS_UNTIL_STILL = 10  # without a recipe and a stage, after which a run counts as stopped
STYLES = {
    DONE: "green", RUNNING: "bold cyan", STOPPED: "yellow", FAILED: "bold red", TO_COME: "dim",
}  # fmt: skip
INDENT = 4
WIDE = 100  # columns from which on there is room for what a model was trained on


def watch(work, once=False):
    """Show the run in folder ``work`` until it is finished or stopped, or the user leaves.

    Args:
        work: the run's folder.
        once: show it as it is now, and return.

    Returns:
        exit status: 0, or 1 where the run ended before it was finished.

    Raises:
        FileNotFoundError, ValueError: there is no run, or no plan.
    """
    watcher = Watcher(work)
    console = Console(highlight=False)
    if once:
        console.print(View(watcher.look(), whole=True))
        return 0
    # not what FORCE_COLOR says: a page drawn again and again would fill a log
    on_screen = sys.stdout.isatty() and not console.is_dumb_terminal
    moments = _moments(watcher)
    moment = _draw(moments, console) if on_screen else _tell(moments)
    return 1 if moment.is_still else 0


def _moments(watcher):
    """Yield what each look finds, until the run is finished or nobody has worked on it for a while.

    Whoever takes them waits in between.
    """
    still_since = None
    while True:
        moment = watcher.look()
        yield moment
        still_since = (still_since or moment.time) if moment.is_still else None
        if moment.is_finished or still_since and moment.time - still_since >= SECONDS_UNTIL_STILL:
            return


def _draw(moments, console):
    """Draw each moment until the last or until the user leaves; returns that."""
    moment = next(moments)
    with contextlib.suppress(KeyboardInterrupt), _key_presses() as pressed:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for moment in chain([moment], moments):
                live.update(View(moment), refresh=True)
                if pressed(0 if moment.is_finished else SECONDS_BETWEEN_LOOKS) in ("q", "Q"):
                    break
    console.print(View(moment, whole=True))
    return moment


def _tell(moments):
    """Print what changes from moment to moment; returns the last."""
    told, moment = Told(), next(moments)
    with contextlib.suppress(KeyboardInterrupt):
        for moment in chain([moment], moments):
            for line in told.news(moment):
                print(line, flush=True)
            if not moment.is_finished:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    if moment.is_finished or moment.is_still:
        print(_clock(moment.time) + _last_words(moment), flush=True)
    return moment


@contextlib.contextmanager
def _key_presses():
    """Yields a function that waits so many seconds for a key; it returns the key or None."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds)
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds):
        if select.select([terminal], [], [], seconds)[0]:
            return os.read(terminal, 1).decode(errors="replace")
        return None

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


# -- the page -------------------------------------------------------------------------------------


class View:
    """A ``Moment`` for rich, fitted into the width and, unless ``whole``, the height there is."""

    def __init__(self, moment, whole=False):
        self._moment, self._whole = moment, whole

    def __rich_console__(self, console, options):
        moment, width = self._moment, options.max_width
        head, scores = _head(moment), _scores(moment, width)
        foot = [] if self._whole else [Text("q or Ctrl-C leaves; the run goes on", style="dim")]
        room = None if self._whole else (options.height or console.height)
        for folded in ((), (DONE,), (DONE, TO_COME)):
            stages = _stages(moment, width, folded)
            parts = [head, Text(), stages, Text(), scores, *foot]
            if room is None or _height(console, options, parts) <= room:
                break
        else:
            parts = [head, Text(), stages, *foot]
        yield Group(*parts)


def _height(console, options, parts):
    return len(console.render_lines(Group(*parts), options.update(height=None), pad=False))


def _head(moment):
    """Which run it is and how far."""
    run, plan = moment.run, moment.run.plan
    what = [f"{run.source_lang} → {run.target_lang}", *run.domains]
    if plan.get("size"):
        what.append(f"student {plan['size']}")
    if plan.get("configurations"):
        what.append("configurations " + ", ".join(map(str, sorted(plan["configurations"]))))
    title = Text(str(run.work), style="bold")
    title.append(": " + ", ".join(what), style="none")
    return Group(title, Text(_standing(moment) + ".", style=_mood(moment)))


def _standing(moment):
    """How far the run is, as a sentence without its full stop."""
    done, all_stages = len(moment.in_state(DONE)), len(moment.stages)
    if moment.is_finished:
        return "Finished" + (f" in {duration(moment.elapsed)}" if moment.elapsed else "")
    text = f"{done} of {all_stages} steps done"
    if moment.in_state(FAILED):
        return f"{text}; failed, see below"
    if moment.is_still:
        return f"{text}; nothing is running. Start the same recipe again, it goes on from here"
    if moment.elapsed:
        text += f", {duration(moment.elapsed)} since the start"
    if left := moment.seconds_left():
        text += f", about {duration(left[0])} left"
        if left[1]:
            text += f", not counting {', '.join(left[1])} (not timed yet)"
    return text


def _mood(moment):
    if moment.in_state(FAILED):
        return STYLES[FAILED]
    return STYLES[STOPPED] if moment.is_still else "none"


def _stages(moment, width, folded):
    """The stages by number; those that are half made one by one.

    Args:
        folded: states of which neighbouring stages are put into one line.
    """
    groups = []
    for (number, title), members in groupby(
        moment.stages, lambda stage: (stage.number, stage.title)
    ):
        members = list(members)
        states = {stage.state for stage in members}
        groups.append((states.pop() if len(states) == 1 else None, number, title, members))
    lines = []
    for state, found in groupby(groups, lambda group: group[0]):
        found = list(found)
        if state in folded and len(found) > 1:
            members = [stage for *_, group in found for stage in group]
            numbers = f"{found[0][1]}–{found[-1][1]}"
            lines.append(_line(numbers, f"{found[0][2]} … {found[-1][2]}", members, width))
            continue
        for _, number, title, members in found:
            lines.append(_line(number, _titled(moment, title, members), members, width))
            for stage in members:
                if stage.state not in (DONE, TO_COME):
                    lines.append(_stage(stage, width))
    return Group(*lines)


def _titled(moment, title, members):
    """The title of stages, with the domain where a run has several."""
    if len(moment.run.domains) > 1:
        for domain in moment.run.domains:
            if all(domain in stage.folder.split("/") for stage in members):
                return f"{title} ({domain})"
    return title


def _line(number, title, members, width):
    """What stages of one number have come to."""
    done = [stage for stage in members if stage.state == DONE]
    running = [stage for stage in members if stage.state == RUNNING]
    if len(done) == len(members):
        text, style = f"done in {duration(covered(stage.span for stage in done))}", STYLES[DONE]
    elif any(stage.state in (FAILED, STOPPED) for stage in members):
        state = FAILED if any(stage.state == FAILED for stage in members) else STOPPED
        text, style = state, STYLES[state]
    elif running or done:
        text, style = "running" if running else "next", STYLES[RUNNING]
    else:
        text, style = "to come", STYLES[TO_COME]
    if len(members) > 1:
        begun = any(stage.state != TO_COME for stage in members) and len(done) < len(members)
        text += f", {len(done)} of {len(members)} steps done" if begun else f", {len(members)} steps"
    room = max(8, min(30, width - 36))
    if len(title) > room:
        title = title[: room - 1] + "…"
    line = Text(f"{number:>5}  ", style="dim", no_wrap=True, overflow="ellipsis")
    line.append(f"{title:<{room}}  ", style="none")
    line.append(text, style=style)
    return line


def _stage(stage, width):
    """A stage that is half made, with all that is known of it."""
    head = Text(stage.folder, style="bold")
    state = stage.state
    if stage.elapsed is not None:
        state += f" for {duration(stage.elapsed)}"
    head.append(f"  {state}", style=STYLES[stage.state])
    parts = [head]
    progress = stage.progress
    if stage.state == RUNNING and progress.share is not None:
        bar = Table.grid(padding=(0, 1))
        bar.add_column(width=max(10, min(40, width - 44)))
        bar.add_column()
        bar.add_row(ProgressBar(100, 100 * progress.share), Text(_left(progress), no_wrap=True))
        parts.append(bar)
    if progress.words:
        parts.append(Text(", ".join(progress.words)))
    if stage.silent > SILENT:
        parts.append(Text(f"it has said nothing for {duration(stage.silent)}", style="yellow"))
    if stage.error:
        parts.append(Text(stage.error, style=STYLES[FAILED]))
    if stage.state != RUNNING:
        parts.append(Text(f"its output: {stage.folder}.log", style="dim"))
    return Padding(Group(*parts), (0, 0, 0, 2 * INDENT - 1), expand=False)


def _left(progress):
    text = f"{100 * progress.share:.0f} %"
    if progress.seconds_left is not None:
        most = "at most" if progress.may_end_early else "about"
        text += f", {most} {duration(progress.seconds_left)} left"
    return text


def _scores(moment, width):
    """Table of what finished models score, for each domain."""
    tables = []
    for domain, rows in moment.rows.items():
        known = [row for row in rows if row.scores or row.model in moment.dev]
        if not known:
            continue
        table = Table(
            box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim",
            title=Text(
                f"BLEU so far, {sum(1 for row in rows if row.scores)} of {len(rows)} models scored",
                style="none",
            ),
            title_justify="left",
        )  # fmt: skip
        table.add_column("model", no_wrap=True, overflow="ellipsis")
        if width >= WIDE:
            table.add_column("trained on", no_wrap=True, overflow="ellipsis", max_width=width - 70)
        for name in ("dev", domain, GENERAL):
            table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
        for row in known:
            cells = [row.name, *([row.label] if width >= WIDE else [])]
            dev = moment.dev.get(row.model)
            cells.append(f"{dev:.1f}" if dev is not None else "")
            cells += [_bleu(row, name) for name in (domain, GENERAL)]
            table.add_row(*map(Text, cells))
        tables += [table, Text()]
    return Padding(Group(*tables), (0, 0, 0, INDENT - 1), expand=False)


def _bleu(row, test_set):
    """BLEU of a row with its interval, as far as scores.json has them."""
    try:
        bleu = row.scores["test_sets"][test_set]["beam"]["bleu"]
        return f"{bleu['score']:.1f} ± {bleu['interval']:.1f}"
    except (TypeError, KeyError, ValueError):
        return ""


# -- lines ----------------------------------------------------------------------------------------


class Told:
    """What was said so far, so that only news are said."""

    def __init__(self):
        self._states, self._words, self._scored = None, {}, set()

    def news(self, moment):
        """Lines about what has changed since the last call."""
        lines = []
        if self._states is None:
            lines.append(f"{moment.run.work}: {_standing(moment)}")
            self._states = {
                stage.folder: stage.state for stage in moment.stages
                if stage.state in (DONE, TO_COME)
            }  # fmt: skip
        for stage in moment.stages:
            if self._states.get(stage.folder) != stage.state:
                self._states[stage.folder] = stage.state
                lines.append(f"{stage.folder}: {_state(stage)}")
            if stage.state == RUNNING and self._is_news(stage, moment.time):
                lines.append(f"{stage.folder}: {_spoken(stage.progress)}")
        for domain, rows in moment.rows.items():
            for row in rows:
                if row.scores and (domain, row.model) not in self._scored:
                    self._scored.add((domain, row.model))
                    lines.append(
                        f"{row.name}: BLEU on {domain} {_bleu(row, domain)}, "
                        f"on general {_bleu(row, GENERAL)}"
                    )
        return [_clock(moment.time) + line for line in lines]

    def _is_news(self, stage, now):
        """Whether a running stage has a new dev score, or was not spoken of for a while."""
        words = stage.progress.words
        if not words:
            return False
        dev = [word for word in words if word.startswith("dev BLEU")]
        before, dev_before, at = self._words.get(stage.folder, ((), None, float("-inf")))
        if words == before or dev == dev_before and now - at < SECONDS_BETWEEN_LINES:
            return False
        self._words[stage.folder] = words, dev, now
        return True


def _state(stage):
    if stage.state == DONE:
        return f"done in {duration(stage.seconds)}" if stage.seconds is not None else DONE
    return f"{stage.state}: {stage.error}" if stage.error else stage.state


def _spoken(progress):
    words = list(progress.words)
    if progress.seconds_left is not None:
        words.append(_left(progress))
    return ", ".join(words)


def _last_words(moment):
    text = _standing(moment)
    if failed := moment.in_state(FAILED):
        text += f" ({', '.join(stage.folder for stage in failed)})"
    return text


def _clock(seconds):
    return time.strftime("%H:%M:%S  ", time.localtime(seconds))


def main():
    sys.exit(watch(sys.argv[1], once="--once" in sys.argv))


if __name__ == "__main__":
    main()
