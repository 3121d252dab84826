"""Score translations: BLEU, chrF and TER with intervals, paired tests, and what scores do not tell.

Scores are sacreBLEU's, of detokenised text, with its signatures. Every line of a system's file
is compared with the same line of the references.

Examples:
  # one test set: files are systems; without a file, translations come from standard input
  dad-score --references test.en --target-lang en hyp1.en hyp2.en
  cat hyp.en | dad-score --references test.en --target-lang en

  # is the new system better than the old one, or is it chance?
  dad-score --references test.en --target-lang en --baseline old.en old.en new.en

  # only the number, or sacreBLEU's line, for a pipe
  dad-score --references test.en --target-lang en --metrics bleu --brief hyp.en
  dad-score --references test.en --target-lang en --format text hyp.en

  # several test sets: folders with test.de and test.en; {test} stands for the test set's name
  dad-score --source-lang de --target-lang en \\
      --test medical=corpora/medical/text --test general=corpora/general/text \\
      --system 'student=scores/student/{test}.beam.en' \\
      --system 'teacher=scores/teacher/{test}.beam.en' \\
      --train medical=corpora/medical/text --train general=corpora/general/text \\
      --baseline student --out scores.json --segments lines.tsv

The table shows traits that a score hides, such as copied or repeated text and the recall of
terms and rare words; --list-indicators defines each. They point to lines to read, which --segments
lists.

Several references: repeat --references; in a folder they are test.en, test.en.1, test.en.2 ...
Files may end in .gz or .zst. Empty translations are legal, and counted.

COMET (--comet MODEL) needs an environment of its own, as unbabel-comet 2.2.7 asks for numpy < 2,
protobuf < 5, transformers < 5 and torchmetrics < 0.11, which other packages here do not bear:
  python -m venv comet && comet/bin/pip install unbabel-comet
  dad-score ... --source test.de --comet Unbabel/wmt22-comet-da \\
      --comet-command comet/bin/comet-score
"""

import contextlib
import itertools
import shutil
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from sacrebleu.metrics.base import Score

from data_prep import command
from data_prep.files import find_text, write_whole
from data_prep.manifest import commit, package_versions, write_json, write_manifest
from fairseq_plugins.evaluation import comet, score_formats
from fairseq_plugins.evaluation.indicators import INDICATORS
from fairseq_plugins.evaluation.metrics import METRICS
from fairseq_plugins.evaluation.resampling import RESAMPLES, seed
from fairseq_plugins.evaluation.scoring import Settings, TestSet, score_test_set
from fairseq_plugins.evaluation.training_text import gather_facts, read_terms

TEST = "{test}"
STDIN = "-"


def main():
    command.run(_main, "dad-score")


def _main():
    parser = _parser()
    args = parser.parse_args()
    if args.list_indicators:
        print(list_indicators())
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tests = _test_sets(args)
        systems = _systems(args, tests, Path(folder))
        settings = _settings(args, systems)
        trains = dict(train_text(text, _folders(args), args.target_lang) for text in args.trains)
        results = _score(args, tests, systems, settings, trains, Path(folder) / "stdin")
    print(_printed(args, results, settings), end="")
    if args.out:
        _write(args, tests, systems, results, settings, trains, time.monotonic() - started)


def _parser():
    parser = command.parser(__doc__, "dad-score")
    text = parser.add_argument_group("text")
    text.add_argument(
        "files", nargs="*", metavar="FILE",
        help="translations, one a line; each file is a system. Without any, or -: standard input",
    )  # fmt: skip
    text.add_argument("--references", action="append", default=[], metavar="FILE",
                      help="untouched references, one a line; repeat it for several")  # fmt: skip
    text.add_argument("--source", metavar="FILE",
                      help="source text, one a line, for indicators that look at it")  # fmt: skip
    text.add_argument("--target-lang", metavar="LANG", help="language of the translations, as en")
    text.add_argument("--source-lang", metavar="LANG", help="language of the source, with --test")
    text.add_argument("--test", dest="tests", action="append", default=[], metavar="NAME=DIR",
                      help="test set: folder with test.TGT, test.SRC; may be repeated")  # fmt: skip
    text.add_argument("--system", dest="systems", action="append", default=[],
                      metavar="NAME=PATTERN", help="system by name: its file, {test} in it stands "
                      "for the test set; may be repeated")  # fmt: skip
    scores = parser.add_argument_group("scores")
    scores.add_argument("-m", "--metrics", nargs="+", default=["bleu", "chrf"], metavar="METRIC",
                        help=f"of {', '.join(METRICS)}")  # fmt: skip
    scores.add_argument("--chrf-word-order", type=int, default=0, metavar="N",
                        help="words in a row that chrF looks at; 2 is chrF++")  # fmt: skip
    scores.add_argument("-tok", "--tokenize", metavar="NAME",
                        help="BLEU's tokeniser, if not sacreBLEU's for the language")  # fmt: skip
    scores.add_argument("-lc", "--lowercase", action="store_true", help="ignore case")
    scores.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N",
                        help="of the bootstrap for intervals; 0 for none")  # fmt: skip
    scores.add_argument("--baseline", metavar="NAME", help="system to test the others against")
    scores.add_argument("--paired", choices=["bs", "ar"], default="bs",
                        help="paired bootstrap, or approximate randomisation")  # fmt: skip
    scores.add_argument("--comet", metavar="MODEL", help="also COMET, with this model; see above")
    scores.add_argument("--comet-command", default="comet-score", metavar="FILE",
                        help="comet-score of an environment with COMET")  # fmt: skip
    scores.add_argument("--comet-gpus", type=int, default=0, metavar="N", help="GPUs for COMET")
    traits = parser.add_argument_group("indicators")
    traits.add_argument("--no-indicators", action="store_true", help="scores alone")
    traits.add_argument("--list-indicators", action="store_true",
                        help="print each with definition and source, and stop")  # fmt: skip
    traits.add_argument("--terms", metavar="FILE", help="terms of the target language, one a line; "
                        "or source term, tab, target term")  # fmt: skip
    traits.add_argument("--train", dest="trains", action="append", default=[], metavar="[NAME=]DIR",
                        help="folder with train.TGT that models may have seen, for rare words and "
                        "text taken verbatim; named as a test set, its terms are mined, too: words "
                        "rare in the other --train. May be repeated")  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("-f", "--format", choices=["table", "text", "json"], default="table",
                        help="table for people; text and json as sacreBLEU")  # fmt: skip
    output.add_argument("-b", "--brief", action="store_true", help="only the scores, one a line")
    output.add_argument("-w", "--width", type=int, default=1, metavar="N",
                        help="decimal places of text, json and --brief")  # fmt: skip
    output.add_argument("--out", metavar="FILE", help="also write everything to this JSON file")
    output.add_argument("--segments", metavar="FILE",
                        help="also write scores and indicators of each line, as TSV")  # fmt: skip
    output.add_argument("--workers", type=int, default=1, metavar="N",
                        help="processes; pays from about 100,000 lines on")  # fmt: skip
    return parser


def list_indicators():
    """Text with title, definition and source of each indicator."""
    needs = {None: "", "source": "; needs source text", "chrf": "; needs the metric chrf",
             "terms": "; needs --terms or --train", "training": "; needs --train"}  # fmt: skip
    return "\n\n".join(
        textwrap.fill(f"{one.title} ({one.key}): {one.definition}", score_formats.WIDTH,
                      subsequent_indent="  ", break_on_hyphens=False)
        + f"\n  Source: {one.paper}{needs[one.needs]}."
        for one in INDICATORS.values()
    )  # fmt: skip


def references_of(folder, tgt_lang):
    """``test.TGT`` of a text folder, and ``test.TGT.1``, ``test.TGT.2`` ... if there are any."""
    found = [find_text(folder, "test", tgt_lang)]
    for number in itertools.count(1):
        try:
            found.append(find_text(folder, "test", f"{tgt_lang}.{number}"))
        except FileNotFoundError:
            return found


def train_text(text, test_folders, tgt_lang):
    """(name, file of targets) of a ``--train [NAME=]DIR``.

    Without a name, it is that of the test set in the same folder, or the folder itself.
    """
    name, equals, folder = text.partition("=")
    if not equals:
        folder = text
        same = [test for test, place in test_folders.items()
                if Path(place).resolve() == Path(folder).resolve()]  # fmt: skip
        name = same[0] if same else folder
    if not name or not folder:
        raise ValueError(f"--train takes a folder or NAME=DIR, not {text!r}")
    return name, find_text(folder, "train", tgt_lang)


def pairs(texts, flag):
    """{name: value} of flags such as ``NAME=DIR``.

    Raises:
        ValueError: without a name or a value, or two of one name.
    """
    found = {}
    for text in texts:
        name, _, rest = text.partition("=")
        if not name or not rest:
            raise ValueError(f"{flag}, not {text!r}")
        if name in found:
            raise ValueError(f"{name!r} stands twice in {flag.split()[0]}; names must differ")
        found[name] = rest
    return found


def _folders(args):
    return pairs(args.tests, "--test takes NAME=DIR")


def _test_sets(args):
    if not args.target_lang:
        raise ValueError("--target-lang is missing: the language of the translations, such as en")
    if args.tests and (args.references or args.source):
        raise ValueError("--test names folders, so --references and --source are not needed")
    if args.tests:
        return [
            TestSet(name, references_of(folder, args.target_lang),
                    find_text(folder, "test", args.source_lang) if args.source_lang else None)
            for name, folder in _folders(args).items()
        ]  # fmt: skip
    if not args.references:
        raise ValueError(
            "no references: give --references FILE (each FILE without a flag is a system), "
            "or --test NAME=DIR"
        )
    return [TestSet("test", args.references, args.source)]


def _systems(args, tests, folder):
    """{test set: {system: file}}; standard input is put into ``folder``, to be read twice."""
    patterns = dict.fromkeys(args.files)
    if len(patterns) < len(args.files):
        twice = next(name for name in args.files if args.files.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice; systems must differ")
    patterns = {name: name for name in patterns}
    for name, pattern in pairs(args.systems, "--system takes NAME=PATTERN").items():
        if name in patterns:
            raise ValueError(f"{name!r} names two systems; names must differ")
        patterns[name] = pattern
    if not patterns:
        patterns = {STDIN: STDIN}
    if STDIN in patterns.values():
        patterns = {name: _standard_input(folder) if pattern == STDIN else pattern
                    for name, pattern in patterns.items()}  # fmt: skip
    if len(tests) > 1:
        for name, pattern in patterns.items():
            if TEST not in str(pattern):
                raise ValueError(
                    f"system {name!r}: {pattern} would be scored on {len(tests)} test sets; "
                    f"put {TEST} where their names stand in the paths"
                )
    return {test.name: {name: str(pattern).replace(TEST, test.name)
                        for name, pattern in patterns.items()} for test in tests}  # fmt: skip


def _standard_input(folder):
    if sys.stdin.isatty():
        print("reading translations from this terminal; Ctrl-D ends them", file=sys.stderr)
    with open(folder / "stdin", "wb") as out:
        shutil.copyfileobj(sys.stdin.buffer, out)
    return folder / "stdin"


def _settings(args, systems):
    names = list(next(iter(systems.values())))
    if args.baseline is not None and args.baseline not in names:
        raise ValueError(f"--baseline {args.baseline!r} is no system; there are {', '.join(names)}")
    if args.baseline is not None and len(names) == 1:
        raise ValueError(f"--baseline {args.baseline!r} is the only system; name one more")
    if args.resamples < 0 or args.resamples == 1:
        raise ValueError(f"--resamples is 0 or at least 2, not {args.resamples}")
    if args.workers < 1:
        raise ValueError(f"--workers is 1 or more, not {args.workers}")
    brief = args.brief or args.format != "table"
    settings = Settings(
        tgt_lang=args.target_lang,
        metrics=tuple(dict.fromkeys(args.metrics)),
        word_order=args.chrf_word_order,
        tokenize=args.tokenize,
        lowercase=args.lowercase,
        # nobody sees them
        resamples=0 if args.brief and not args.out else args.resamples,
        indicators=not args.no_indicators and (not brief or bool(args.out or args.segments)),
        baseline=args.baseline,
        paired=args.paired,
        workers=args.workers,
    )
    for name in settings.metrics:
        if name not in METRICS and Path(name).exists():
            raise ValueError(
                f"--metrics takes all words that follow, and {name!r} is a file; put files first, "
                f"or -- between"
            )
        settings.metric(name)  # is one of sacreBLEU's, before anything is read
    return settings


def _score(args, tests, systems, settings, trains, stdin):
    facts = {}
    if settings.indicators:
        has_source = all(test.source for test in tests)
        terms = read_terms(args.terms, has_source) if args.terms else None
        facts = gather_facts({test.name: test.references for test in tests},
                             {name: files.values() for name, files in systems.items()},
                             trains, terms, args.target_lang)  # fmt: skip
    results = {}
    with contextlib.ExitStack() as stack:
        write = None
        if args.segments:
            out = stack.enter_context(write_whole(args.segments))
            write = _Segments(out, settings)
        for test in tests:
            files = systems[test.name]
            result = score_test_set(test, files, settings, facts.get(test.name),
                                    write and write.of(test.name))  # fmt: skip
            for name, system in result["systems"].items():
                if system["empty_lines"] == result["lines"]:
                    raise ValueError(
                        f"{files[name]} holds nothing but {result['lines']:,} empty lines"
                    )
            for name, path in files.items():
                if path == str(stdin):
                    result["systems"][name]["file"] = STDIN
            if settings.indicators and facts[test.name].terms is not None and not args.terms:
                result["terms"] = sorted(facts[test.name].terms.sources)
            if args.comet:
                found = comet.score(test, files, args.comet, args.comet_command, args.comet_gpus)
                for name, entry in found.items():
                    result["systems"][name]["scores"]["comet"] = entry
                    result["objects"][name]["comet"] = (Score(comet.NAME, entry["score"]),
                                                        entry["signature"])  # fmt: skip
            results[test.name] = result
    return results


class _Segments:
    """Writes a line for each line and system: scores of the sentence, then indicators."""

    def __init__(self, out, settings):
        self.out = out
        self.metrics = settings.metrics
        self.keys = None

    def of(self, test_set):
        return lambda number, systems: self._write(test_set, number, systems)

    def _write(self, test_set, number, systems):
        for name, (scores, marks) in systems.items():
            if self.keys is None:
                self.keys = list(marks)
                head = ["test_set", "line", "system", *self.metrics, *self.keys]
                self.out.write("\t".join(head) + "\n")
            cells = [f"{scores[metric]:.2f}" for metric in self.metrics]
            cells += [_mark(key, *marks.get(key, (0, 0))) for key in self.keys]
            self.out.write("\t".join([test_set, str(number), name, *cells]) + "\n")


def _mark(key, count, of):
    """1 or 0 of what is counted in lines, else COUNT/OF; empty where the line is not judged."""
    if not of:
        return ""
    return str(count) if INDICATORS[key].counts == "lines" else f"{count}/{of}"


def _printed(args, results, settings):
    if args.brief or args.format == "text":
        lines = score_formats.lines_of(results, args.width, args.brief)
        return "".join(f"{line}\n" for line in lines)
    if args.format == "json":
        return score_formats.as_json(results, args.width) + "\n"
    return score_formats.table(results, settings)


def _write(args, tests, systems, results, settings, trains, seconds):
    for result in results.values():
        del result["objects"]
    write_json(args.out, {"test_sets": results, "versions": package_versions(), "commit": commit()})
    inputs = [path for test in tests for path in
              (*test.references, *filter(None, [test.source]), *systems[test.name].values())
              if Path(path).exists()]  # fmt: skip
    write_manifest(
        args.out,
        settings=vars(settings),
        inputs=[*inputs, *trains.values(), *filter(None, [args.terms])],
        counts={f"{name} lines": result["lines"] for name, result in results.items()},
        seconds=seconds,
        seed=seed(),
    )


if __name__ == "__main__":
    main()
