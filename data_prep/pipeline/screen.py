"""What a person sees of a run: on a terminal a line for each running stage, elsewhere events."""

import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data_prep.pipeline.progress import left
from data_prep.pipeline.stage import duration

BETWEEN = 1.0  # seconds between two drawings
BAR = 20  # columns


class Lines:
    """A line for each event, which begins with the stage that it is about."""

    is_live = is_due = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    @staticmethod
    def of_stage(stage):
        """What dad-stage shall show of the command's output."""
        return "lines" if stage.screen == "all" else stage.screen

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def say_of(self, stage, line):
        """Pass on a line that a stage has printed."""
        is_table = stage.kind == "report" and not line.startswith("dad-")
        if line.startswith(f"{stage.out}: ") or is_table:  # which would lose its columns
            self.say(line)
        elif line.strip():
            self.say(f"{stage.out}: {line}")


class LiveScreen(Lines):
    """The same, scrolling above a view of what runs now, which is drawn again and again."""

    is_live = True

    def __init__(self):
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    def __enter__(self):
        self._live.start()
        return self

    def __exit__(self, *_):
        self._live.stop()

    @staticmethod
    def of_stage(stage):
        # the view tells how far a training is
        return "none" if stage.screen == "train" else Lines.of_stage(stage)

    def say(self, text):
        self._console.print(Text(text), soft_wrap=True)

    @property
    def is_due(self):
        return time.monotonic() - self._drawn >= BETWEEN

    def draw(self, words, progress, elapsed):
        """Show the state of the whole and of the stages that run.

        Args:
            words: about the whole.
            progress: {out: ``Progress``}.
            elapsed: {out: seconds since it began}.
        """
        self._drawn = time.monotonic()
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(width=BAR)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        for out, told in progress.items():
            bar = "" if told.share is None else ProgressBar(1.0, told.share, width=BAR)
            rest = left(told) or f"for {duration(elapsed[out])}"
            table.add_row(Text(out, style="bold"), bar, Text(", ".join(told.words)), rest)
        # the whole first: of a view that is higher than the terminal the end is cut off
        self._live.update(Group(Text(words, style="bold"), table), refresh=True)
