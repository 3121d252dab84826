"""Write the report of a run: what to ship, what each step bought, how sure that is.

Reads the folder of a run (--work of a recipe) and writes into --out, for a domain:

  report.html   the page: one file, opens without a network, prints, reads on a phone
  report.md     the same in short, for a forge
  report.json   everything as data; pydoc fairseq_plugins.report.findings explains it
  table.txt     the table, which is printed, too
  table.md      the same table in Markdown
  scores.tsv    the scores alone; the same run gives the same bytes again

A run that is not finished has a report, too: it says at its top how far the run is. Without
--domain every domain gets its report, and without --out they go to WORK/report/NAME-by-hand.

--all-domains makes one page of all domains: a table of domains and models, what each step bought in
which domain, a verdict over the domains, links to their own pages. A domain's report that the run
has made is read; the others are made anew in memory. Without --out it goes to
WORK/report/all-by-hand.

--compare lays two runs side by side: settings that differ, scores, speed, and where both have the
same test set whether the difference is more than noise.

--results writes RESULTS.md of one or more finished runs: tables, what each step bought, the paper's
claims, time and machines, and the commands to redo it. --label says in a sentence what a run is and
what it is not. No path of this machine gets in: --place CORPORA=/data/corpora shows what lies there
as $CORPORA. What stands under "## Remarks" in an older file is kept. --check-results tells whether
anybody has changed the numbers by hand.

--watch shows a run while it goes on: stages, progress, time left, scores so far. On a terminal
that is a page, q leaves it; into a file or a pipe go lines about what changes. It only reads, so it
may come and go. It ends with the run: with status 0, or 1 if the run stopped before its end. With
--once it shows how the run stands now.

Examples:
  dad-report --work runs/medical
  dad-report --work runs/medical --domain medical --out medical-report
  dad-report --work runs/de-en --all-domains
  dad-report --compare runs/medical runs/medical-replay --out replay-or-not
  dad-report --work runs/medical --watch
  dad-report --results recipes/de-en/RESULTS.md --work runs/medical \\
    --label "Small models, trained for minutes on a CPU." --place CORPORA=/data/corpora
  dad-report --check-results recipes/*/RESULTS.md
"""

from pathlib import Path

from tqdm import tqdm

from data_prep import command
from data_prep.files import write_whole, write_whole_folder
from data_prep.manifest import commit, package_versions, write_json
from fairseq_plugins.report import all_domains, findings, page, results, tables, two_runs
from fairseq_plugins.report.run import chosen, open_run

JSON = "report.json"


def main():
    command.run(_main, "dad-report")


def _main():
    parser = command.parser(__doc__, "dad-report")
    parser.add_argument(
        "--work", metavar="WORK", action="append", default=[],
        help="folder of the run; with --results it may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--domain", metavar="NAME",
        help="one of its domains, or several joined by commas (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR",
        help="folder to make, in place of an older report there; several domains get a folder "
        "each in it (default: WORK/report/NAME-by-hand)",
    )  # fmt: skip
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="folders of two runs to lay side by side"
    )
    parser.add_argument("--results", metavar="FILE", help="RESULTS.md to write")
    parser.add_argument(
        "--label", action="append", default=[], metavar="TEXT",
        help="with --results: what a run is and what it is not, in a sentence; one for each --work",
    )  # fmt: skip
    parser.add_argument(
        "--place", action="append", default=[], metavar="NAME=PATH",
        help="with --results: show PATH as $NAME; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--check-results", nargs="+", metavar="FILE", help="RESULTS.md that nobody may have changed"
    )
    parser.add_argument(
        "--all-domains", action="store_true", help="one page of all domains of the run"
    )
    parser.add_argument("--watch", action="store_true", help="show the run while it goes on")
    parser.add_argument("--once", action="store_true", help="with --watch: show it as it is now")
    args = parser.parse_args()
    if args.check_results:
        return _check_results(args.check_results)
    if args.results:
        return _results(parser, args)
    if args.label or args.place:
        parser.error("--label and --place go with --results FILE")
    if args.compare:
        if args.work or args.watch or args.all_domains or not args.out:
            parser.error(
                "--compare A B goes with --out DIR, not with --work, --watch or --all-domains"
            )
        return _compare(*args.compare, args.domain, Path(args.out))
    if args.all_domains and (args.domain or args.watch):
        parser.error("--all-domains goes with --work and --out alone")
    if args.once and not args.watch:
        parser.error("--once goes with --watch")
    if len(args.work) != 1:
        parser.error("--work WORK says which run, or --compare A B which two")
    (work,) = args.work
    if args.watch:
        from fairseq_plugins.report import live

        return live.watch(work, once=args.once)
    if args.all_domains:
        return _all_domains(work, args.out)
    return _report(work, args.domain, args.out)


def _results(parser, args):
    if not args.work or len(args.label) != len(args.work):
        parser.error("--results FILE goes with --work WORK --label TEXT, once for each run")
    if args.compare or args.watch or args.all_domains or args.out:
        parser.error("--results FILE goes with no --compare, --watch, --all-domains or --out")
    places = results.read_places(args.place)
    runs = [open_run(work) for work in args.work]
    results.write(args.results, runs, args.label, places, args.domain)
    print(f"{args.results}: written of {', '.join(args.work)}")


def _check_results(paths):
    changed = [path for path in paths if results.check(path) is False]
    if changed:
        raise ValueError(
            f"{', '.join(changed)}: not as dad-report wrote it above {results.REMARKS!r}; write it "
            "anew with the command that stands at its top"
        )
    for path in paths:
        by_hand = results.check(path) is None
        print(f"{path}: {'written by hand' if by_hand else 'as dad-report wrote it'}")


def _report(work, domain, out):
    run = open_run(work)
    domains = chosen(run.domains, domain, work)
    for name in domains:
        if out is None:
            folder = run.work / "report" / f"{name}-by-hand"
        else:
            folder = Path(out) / name if len(domains) > 1 else Path(out)
        report = write(run, name, folder)
        print(tables.as_text(report), end="")
        _tell_place(folder, out)


def _all_domains(work, out):
    run = open_run(work)
    folder = run.work / "report" / f"{all_domains.ALL}-by-hand" if out is None else Path(out)
    _check_place(folder)
    with tqdm(total=len(run.domains), unit=" domains", **command.bar_settings()) as bar:
        found = all_domains.find(run, folder, progress=bar.update)
    files = {
        "report.html": page.all_domains_as_html(found),
        "report.md": page.all_domains_as_markdown(found),
        "table.txt": all_domains.as_text(found),
    }
    _write_files(folder, files, found)
    print(all_domains.as_text(found), end="")
    _tell_place(folder, out)


def _tell_place(folder, out):
    if out is None or not folder.name.endswith(".part"):  # else a stage, which tells the place
        print(f"\n{folder / 'report.html'}: open it in a browser")


def write(run, domain, folder):
    """Write all files of one domain's report into ``folder`` and return it as data.

    Raises:
        FileExistsError: the folder is there and holds no report of ours.
    """
    _check_place(folder)
    with tqdm(desc=f"{domain}: comparing", unit=" pairs", **command.bar_settings()) as bar:
        report = findings.find(run, domain, progress=bar.update)
    files = {
        "report.html": page.as_html(report),
        "report.md": page.as_markdown(report),
        "table.txt": tables.as_text(report),
        "table.md": tables.as_markdown(report),
        "scores.tsv": tables.as_tsv(report),
    }
    _write_files(folder, files, report)
    return report


def _check_place(folder):
    """Refuse a folder that holds something else, before the work and not after it."""
    if folder.exists() and not _is_report(folder):
        raise FileExistsError(
            f"{folder} exists and is not a report that dad-report may replace; remove it or name "
            f"another place"
        )


def _write_files(folder, files, record):
    """Make a report's folder of {name: text} and of the record behind them."""
    with write_whole_folder(folder, replace=_is_report(folder)) as part:
        for name, text in files.items():
            with write_whole(part / name) as out:
                out.write(text)
        write_json(part / JSON, _signed(record))


def _compare(first, second, domain, out):
    runs = [open_run(first), open_run(second)]
    shared = [name for name in runs[0].domains if name in runs[1].domains]
    if not shared:
        raise ValueError(
            f"{first} and {second} have no domain in common: {', '.join(runs[0].domains)} and "
            f"{', '.join(runs[1].domains)}"
        )
    for name in (domains := chosen(shared, domain, "both runs")):
        folder = out / name if len(domains) > 1 else out
        _check_place(folder)
        comparison = two_runs.find(*runs, name)
        files = {
            "report.html": page.difference_as_html(comparison),
            "report.md": page.difference_as_markdown(comparison),
            "table.txt": two_runs.as_text(comparison),
        }
        _write_files(folder, files, comparison)
        print(two_runs.as_text(comparison), end="")
        print(f"\n{folder / 'report.html'}: open it in a browser")


def _is_report(folder):
    """Whether a folder is a report that may be replaced, and not one that a stage made."""
    return (folder / JSON).exists() and not (folder / "stage.json").exists()


def _signed(record):
    """With what the report itself was made by."""
    return {**record, "written_by": {"versions": package_versions(), "commit": commit()}}


if __name__ == "__main__":
    main()
