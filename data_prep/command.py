"""What all our commands share: help made from the module's docstring, errors made for the user."""

import argparse
import os
import signal
import sys


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's line breaks and shows every default."""


def parser(doc, prog):
    """Argument parser whose ``--help`` begins with the module docstring ``doc``."""
    return argparse.ArgumentParser(prog=prog, description=doc, formatter_class=_HelpFormatter)


def run(function, prog):
    """Call ``function`` and exit; the user's mistakes become one line on stderr, not a traceback.

    Exit status: what ``function`` returns (None is 0), 1 after ``ValueError`` or ``OSError``,
    130 after Ctrl-C and 143 after SIGTERM (both leave finished parts for the next run).
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        status = function()
        sys.stdout.flush()
    except _Terminated:
        print(f"{prog}: terminated; run the same command again to go on", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, for example `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {_sentence(error)}", file=sys.stderr)
        sys.exit(1)
    sys.exit(status)


def bar_settings():
    """How often tqdm's bar is drawn: rarely where it goes to a file."""
    on_screen = sys.stderr.isatty()
    return {"mininterval": 0.5 if on_screen else 30, "dynamic_ncols": on_screen}


class _Terminated(BaseException):
    """SIGTERM as an exception, so that unfinished files are cleaned up on the way out."""


def _raise_terminated(number, frame):
    raise _Terminated


def _sentence(error):
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
