"""The live view of a run: on a terminal a page that is drawn again and again, elsewhere lines."""

import contextlib
import os
import select
import sys
import time
from itertools import chain

from rich.console import Console
from rich.live import Live

from data_prep.pipeline.progress import left
from data_prep.pipeline.stage import duration
from fairseq_plugins.report.moment import Watcher
from fairseq_plugins.report.run import DONE, GENERAL, RUNNING, TO_COME
from fairseq_plugins.report.view import View, bleu, standing

SECONDS_BETWEEN_LOOKS = 2
SECONDS_BETWEEN_LINES = 60  # about a stage of which only the counts have changed
SECONDS_UNTIL_STILL = 10  # without a recipe and a stage, after which a run counts as stopped


def watch(work, once=False):
    """Show the run in folder ``work`` until it is finished or stopped, or the user leaves.

    Args:
        work: the run's folder.
        once: show it as it is now, and return.

    Returns:
        exit status: 0, or 1 where the run has stopped before its end.

    Raises:
        FileNotFoundError, ValueError: there is no run, or no plan.
    """
    sys.stdout.reconfigure(errors="replace")  # a terminal may lack our signs
    watcher, console = Watcher(work), Console(highlight=False)
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
    """Draw each moment, until the last one or until the user leaves; returns that."""
    moment = next(moments)
    with contextlib.suppress(KeyboardInterrupt), _key_presses() as pressed:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for moment in chain([moment], moments):
                live.update(View(moment), refresh=True)
                if not moment.is_finished and pressed(SECONDS_BETWEEN_LOOKS) in ("q", "Q"):
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
        print(f"{_clock(moment)}{standing(moment)}.", flush=True)
    return moment


@contextlib.contextmanager
def _key_presses():
    """Yields a function that waits so many seconds for a key; it returns the key or None."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds):
        if select.select([terminal], [], [], seconds)[0]:
            return os.read(terminal, 1).decode("utf-8", "replace") or "q"  # the terminal has gone
        return None

    try:
        tty.setcbreak(terminal, termios.TCSANOW)  # keys that were pressed early count
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class Told:
    """What was said so far, so that only news are said."""

    def __init__(self):
        self._states, self._words, self._scored = None, {}, set()

    def news(self, moment):
        """Lines about what has changed since the last call, each with the time of day."""
        lines = []
        if self._states is None:
            lines.append(f"{moment.run.work}: {standing(moment)}")
            self._states = {stage.folder: stage.state for stage in moment.in_state(DONE, TO_COME)}
        for stage in moment.stages:
            if self._states.get(stage.folder) != stage.state:
                self._states[stage.folder] = stage.state
                lines.append(f"{stage.folder}: {_state(stage)}")
            if stage.state == RUNNING and self._is_news(stage, moment.time):
                words = [*stage.progress.words, left(stage.progress)]
                lines.append(f"{stage.folder}: {', '.join(filter(None, words))}")
        for domain, rows in moment.rows.items():
            for row in rows:
                if row.scores and (domain, row.model) not in self._scored:
                    self._scored.add((domain, row.model))
                    scores = ", ".join(f"on {name} {bleu(row, name)}" for name in (domain, GENERAL))
                    lines.append(f"{row.name}: BLEU {scores}")
        return [_clock(moment) + line for line in lines]

    def _is_news(self, stage, now):
        """Whether a running stage has a new dev score, or was not spoken of for a while."""
        words = stage.progress.words
        dev = [word for word in words if word.startswith("dev BLEU")]
        before, dev_before, at = self._words.get(stage.folder, ((), [], float("-inf")))
        if words == before or dev == dev_before and now - at < SECONDS_BETWEEN_LINES:
            return False
        self._words[stage.folder] = words, dev, now
        return True


def _state(stage):
    if stage.error:
        return f"{stage.state}: {stage.error}"
    if stage.seconds is not None:
        return f"{stage.state} in {duration(stage.seconds)}"
    return stage.state


def _clock(moment):
    return time.strftime("%H:%M:%S  ", time.localtime(moment.time))
