"""Translate with exported models: a filter for the command line, or a page for the browser.

FILTER: reads lines from standard input, writes their translations to standard output: one
line out for each line in, in order, whatever the line holds. An empty line stays empty. Of a
line that is longer than the model reads (--max-source-pieces) the beginning is translated, and
the line is named on stderr. A line that is not UTF-8 ends the work with an error; the lines
before it are translated. Output comes as soon as the input pauses, so programs may write
a line and wait for the answer, and endless input needs no more memory than short input.

  dad-translate --model exported/student < test.de > test.en
  tail -f log.de | dad-translate --model exported/student
  dad-translate --model exported/student --scores < test.de | cut -f 2
  dad-translate --model exported/student --nbest 5 < test.de > test.nbest

--scores adds a tab and the score: log-probability per piece in nats, 0 is certain, an empty line
has 0. --nbest N prints N lines for each line in the format of Moses, line numbers from 0:
  0 ||| Das ist gut . ||| logprob= -2.3104 pieces= 5 ||| -0.462080

A file of many hours is for dad-generate, which goes on where it was after a kill.

PAGE AND HTTP SERVICE, with --serve: type a sentence and see what several models make of it, side
by side, with their times. Only this machine can reach it, unless --host says otherwise.

  dad-translate --serve --model teacher=exported/teacher --model student=exported/student --open
  dad-translate --serve --run runs/medical
  curl http://127.0.0.1:8080/translate -H 'Content-Type: application/json' \\
       -d '{"text": "Guten Morgen.", "beam": 5, "nbest": 1}'

GET /api describes requests, answers and limits; GET /health says whether it works.

Models are EXPORTED folders (dad-export) or folders of CTranslate2's own converters, such as
OPUS-MT. Neither fairseq nor PyTorch is needed.
"""

import contextlib
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from data_prep.command import bar_settings, parser, run
from data_prep.processes import usable_cores
from fairseq_plugins.generation.backends import COMPUTE_TYPES, DEVICES
from fairseq_plugins.generation.converted import add_conventions
from fairseq_plugins.generation.decoding import (
    DEFAULT_BEAM,
    MAX_SOURCE_PIECES,
    beam_for,
    check_numbers,
)
from fairseq_plugins.generation.nbest import format_candidates
from fairseq_plugins.generation.policies import Policies
from fairseq_plugins.generation.teacher import EMPTY_SOURCE, FAILED, TOO_LONG
from fairseq_plugins.serving.stream import Input, translate_stream
from fairseq_plugins.serving.translator import Translator

PROG = "dad-translate"
NAMED_LINES = 20  # of the lines that were cut; more are only counted
HOST, PORT = "127.0.0.1", 8080
MOST_THREADS = 4  # more do not make a single sentence faster
SERVING = ("host", "port", "open", "run", "domain")
AT_LEAST_ONE = ("beam", "max_source_pieces", "workers", "threads", "batch_tokens")
FILTERING = ("n_best", "scores", "on_fail", "quiet")


def main():
    run(_main, PROG)


def _main():
    words = _parser()
    args = vars(words.parse_args())
    serving = args.pop("serve")
    refused, which = (FILTERING, "without") if serving else (SERVING, "with")
    for name in refused:
        if args.pop(name) != words.get_default(name):
            flag = {"n_best": "nbest"}.get(name, name).replace("_", "-")
            raise ValueError(f"--{flag} is for {PROG} {which} --serve")
    check_numbers(**{name: args[name] for name in AT_LEAST_ONE})
    return (_serve if serving else _filter)(args)


# -- filter --------------------------------------------------------------------------------


def _filter(args):
    names, n_best, scores = args.pop("model"), args.pop("n_best"), args.pop("scores")
    on_fail, quiet, beam = args.pop("on_fail"), args.pop("quiet"), args.pop("beam")
    if len(names) != 1:
        raise ValueError(
            f"name one --model, not {len(names)}; several side by side are for --serve"
        )
    check_numbers(nbest=n_best)
    if scores and n_best > 1:
        raise ValueError("--nbest prints scores already; leave out --scores")
    beam = beam_for(beam, n_best)
    translator = Translator(names[0], **args)
    if sys.stdin.isatty() and not quiet:
        _say("type a line and press Enter; Ctrl-D ends")
    lines = Input(sys.stdin.fileno())
    # buffered even under PYTHONUNBUFFERED, where a signal would cut what is written
    out = open(sys.stdout.fileno(), "wb", closefd=False)
    report = Report(lines, translator.longest, quiet)
    stop = _Stop()
    try:
        translated = translate_stream(
            lines, translator.teacher(beam, n_best), Policies(on_fail=on_fail), translator.workers
        )
        for candidates, rows in translated:
            text = format_lines(report.lines_out, candidates, n_best, scores)
            with stop.later():
                out.write(text.encode("utf-8"))
                out.flush()
                report.note(candidates, rows)
    except _Stopped as stopped:
        report.close()
        _say(f"stopped; {report}")
        return 128 + stopped.args[0]
    except ValueError:
        report.close()
        _say(f"{report}")
        raise
    report.close()
    assert lines.lines == report.lines_out, "a line was lost"
    if not quiet:
        _say(f"{report}")


def format_lines(first, candidates, n_best, scores):
    """What is written for lines number ``first`` (from 0) and following, with line feeds.

    Args:
        candidates: list of lists of ``Candidate``, one list for each line.
        n_best: above 1, all candidates in the format of Moses.
        scores: whether the best one's score follows after a tab.
    """
    if n_best > 1:
        return "".join(
            format_candidates(number, found) for number, found in enumerate(candidates, first)
        )
    return "".join(
        f"{best.text}\t{best.normalised:.6f}\n" if scores else f"{best.text}\n"
        for best, *_ in candidates
    )


class Report:
    """Counts lines, names those that were cut, and says at the end what came of all.

    Args:
        lines: ``Input``.
        longest: most pieces that are translated.
        quiet: names no lines.
    """

    def __init__(self, lines, longest, quiet):
        self._lines, self._longest, self._quiet = lines, longest, quiet
        self._counts, self._started = Counter(), time.monotonic()
        self.lines_out = 0
        # beside text on a screen a bar would be in the way
        watched = sys.stderr.isatty() and not sys.stdin.isatty() and not sys.stdout.isatty()
        self._bar = tqdm(unit=" lines", disable=quiet or not watched, **bar_settings())

    def note(self, candidates, rows):
        """Take account of lines that were written, and of the ledger's rows about them."""
        self.lines_out += len(candidates)
        self._bar.update(len(candidates))
        for row in rows:
            self._counts[row.what] += 1
            if self._quiet or row.what not in (TOO_LONG, FAILED):
                continue
            if self._counts[row.what] > NAMED_LINES:
                continue
            self._bar.clear()
            what = {
                TOO_LONG: f"too long, only its first {self._longest:,} pieces are translated",
                FAILED: "the decoder gave up, the translation is empty",
            }[row.what]
            more = "; no more lines are named" if self._counts[row.what] == NAMED_LINES else ""
            _say(f"line {row.line:,}: {what}{more}")

    def close(self):
        """The bar disappears."""
        self._bar.close()

    def __str__(self):
        words = ((EMPTY_SOURCE, "empty"), (TOO_LONG, "cut"), (FAILED, "failed"))
        special = [f"{self._counts[what]:,} {word}" for what, word in words if self._counts[what]]
        counted = f" ({', '.join(special)})" if special else ""
        return (
            f"{self._lines.lines:,} lines in, {self.lines_out:,} translated{counted}, "
            f"{time.monotonic() - self._started:,.1f} s"
        )


class _Stopped(BaseException):
    """SIGINT or SIGTERM; its number."""


class _Stop:
    """From now on SIGINT and SIGTERM raise ``_Stopped``; a second one ends the process at once."""

    def __init__(self):
        self._writing, self._came = False, None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number, frame):
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
        self._came = number
        if not self._writing:
            raise _Stopped(number)

    @contextlib.contextmanager
    def later(self):
        """What is written here is whole and counted: a signal waits for its end."""
        self._writing = True
        yield
        self._writing = False
        if self._came is not None:
            raise _Stopped(self._came)


def _say(text):
    print(f"{PROG}: {text}", file=sys.stderr)


# -- service -------------------------------------------------------------------------------


def _serve(args):
    from fairseq_plugins.serving.run_folder import models_of_run  # the web only where it is served
    from fairseq_plugins.serving.service import Model, check_port, serve

    host, port, browse = args.pop("host"), args.pop("port"), args.pop("open")
    work, domain, beam = args.pop("run"), args.pop("domain"), args.pop("beam")
    named = [name_and_folder(text) for text in args.pop("model")]
    if domain and not work:
        raise ValueError("--domain chooses among those of --run WORK")
    found = models_of_run(work, domain, _say) if work else []
    found += [(name, folder, "") for name, folder in named]
    if not found:
        raise ValueError("name models with --model NAME=DIR, or a run's folder with --run WORK")
    names = [name for name, _, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two models are called {name!r}; name them --model NAME=DIR")
    check_port(host, port)  # models take time to load
    # sentences come one by one, and one is translated at a time: several cores for it
    args["workers"] = args["workers"] or 1
    args["threads"] = args["threads"] or min(usable_cores(), MOST_THREADS)
    models = [Model(name, about, Translator(folder, **args)) for name, folder, about in found]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end it in the same way
    serve(models, host, port, beam or DEFAULT_BEAM, browse, _say)


def name_and_folder(text):
    """(name, folder) of ``NAME=DIR``, or of a folder, whose path is its name then."""
    name, equals, folder = text.partition("=")
    if Path(text).exists() or not equals:  # a folder's name may hold the sign itself
        return text, text
    if not name.strip() or not folder:
        raise ValueError(f"--model takes NAME=DIR, not {text!r}")
    return name.strip(), folder


def _parser():
    words = parser(__doc__, PROG)
    words.add_argument(
        "--model", action="append", default=[], metavar="[NAME=]DIR",
        help="EXPORTED folder, or one that CTranslate2's own converters made; with --serve "
        "several, each with a name of its own",
    )  # fmt: skip
    words.add_argument("--beam", type=int, metavar="N",
                       help=f"hypotheses kept at each step, 1 is greedy; unset: {DEFAULT_BEAM}, or "
                       "as many as --nbest; with --serve: what the page begins with")  # fmt: skip
    words.add_argument(
        "--max-source-pieces", type=int, metavar="N",
        help="most pieces of a line that are translated; unset: "
        f"{MAX_SOURCE_PIECES}, or what the model can read",
    )  # fmt: skip

    lines = words.add_argument_group("filter")
    lines.add_argument("--nbest", "--n-best", dest="n_best", type=int, default=1, metavar="N",
                       help="translations of each line, in the format of Moses")  # fmt: skip
    lines.add_argument("--scores", action="store_true",
                       help="after each translation a tab and its score")  # fmt: skip
    lines.add_argument("--on-fail", choices=("stop", "drop"), default="stop",
                       help="a line that the decoder gives up on: stop, or leave its translation "
                       "empty")  # fmt: skip
    lines.add_argument("--quiet", action="store_true", help="say nothing but errors")

    page = words.add_argument_group("page and HTTP service")
    page.add_argument("--serve", action="store_true", help="serve instead of filtering")
    page.add_argument("--host", default=HOST, help="address to listen at; 0.0.0.0: whoever can "
                      "reach this machine may use the models")  # fmt: skip
    page.add_argument("--port", type=int, default=PORT, help="0: any that is free")
    page.add_argument("--open", action="store_true", help="open the page in the browser")
    page.add_argument("--run", metavar="WORK",
                      help="a recipe's work folder: its teacher, its general student and its best "
                      "in-domain student")  # fmt: skip
    page.add_argument("--domain", metavar="NAME", help="of the run, where it has several")

    speed = words.add_argument_group("speed")
    speed.add_argument("--device", choices=["auto", *DEVICES], default="auto",
                       help="auto: a GPU where CTranslate2 finds one")  # fmt: skip
    speed.add_argument("--compute-type", choices=COMPUTE_TYPES,
                       help="unset: what the model was saved with")  # fmt: skip
    speed.add_argument("--workers", type=int, metavar="N",
                       help="batches translated at once; unset: one for each usable core or GPU, "
                       "with --serve 1")  # fmt: skip
    speed.add_argument("--threads", type=int, metavar="N",
                       help="for each worker; unset: 1, with --serve one for each core, up to "
                       f"{MOST_THREADS}")  # fmt: skip
    speed.add_argument("--batch-tokens", type=int, metavar="N",
                       help="most source pieces in a batch; unset: by device")  # fmt: skip
    add_conventions(words)
    return words


if __name__ == "__main__":
    main()
