"""Print the table of a run: what each configuration scored and what each step bought.

Reads folders made by dad-evaluate and, for the last column, a file made by
dad-speed. Writes into --out:

  table.txt     what is printed
  table.md      the same table in Markdown
  scores.tsv    the scores alone; the same run gives the same bytes again
  report.json   everything, with signatures

Example:
  dad-report --domain medical --references corpora/medical/text --target-lang en \\
      --scores scores/medical/student/small/9/medical \\
      --scores scores/medical/student/small/7/medical --out report/medical \\
      --compare 9:7:"second distillation, adapted teacher"
"""

from pathlib import Path

from tabulate import tabulate

from data_prep import command
from data_prep.files import find_text, write_whole, write_whole_folder
from data_prep.manifest import commit, package_versions, read_json, write_json
from fairseq_plugins.evaluation.comparison import compare
from fairseq_plugins.evaluation.evaluate import SCORES

GENERAL = "general"
NOISE = 0.05  # p-value from which on a difference is called noise


def main():
    command.run(_main, "dad-report")


def _main():
    parser = command.parser(__doc__, "dad-report")
    parser.add_argument("--domain", required=True, help="name of the in-domain test set")
    parser.add_argument(
        "--scores", action="append", required=True, metavar="DIR",
        help="folder made by dad-evaluate; one for each row, in the order of the rows",
    )  # fmt: skip
    parser.add_argument(
        "--references", required=True, metavar="DIR",
        help="text folder of the in-domain test set, for the paired bootstrap",
    )  # fmt: skip
    parser.add_argument("--target-lang", required=True, help="language code of the translations")
    parser.add_argument("--speed", help="file made by dad-speed")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="NEW:OLD:WORDS",
        help="two rows by name, and what lies between them in words; may be repeated",
    )  # fmt: skip
    parser.add_argument("--note", action="append", default=[], help="sentence to put below")
    parser.add_argument("--out", required=True, help="folder to make")
    args = parser.parse_args()

    rows = {}
    for folder in map(Path, args.scores):
        record = read_json(folder / SCORES)
        rows[record["name"]] = {**record, "folder": str(folder)}
    speeds = read_json(args.speed) if args.speed else None
    references = find_text(args.references, "test", args.target_lang)
    steps = [_step(text, rows, args.domain, references, args.target_lang) for text in args.compare]
    with write_whole_folder(args.out) as part:
        text = _text(rows, steps, speeds, args.domain, args.note)
        for name, content in (
            ("table.txt", text),
            ("table.md", tabulate(*_table(rows, speeds, args.domain), tablefmt="github") + "\n"),
            ("scores.tsv", _tsv(rows, steps, args.domain)),
        ):
            with write_whole(part / name) as out:
                out.write(content)
        write_json(
            part / "report.json",
            {
                "domain": args.domain, "systems": rows, "steps": steps, "speed": speeds,
                "versions": package_versions(), "commit": commit(),
            },
        )  # fmt: skip
    print(text, end="")


def _step(text, rows, domain, references, tgt_lang):
    """One ``--compare`` with its paired bootstrap."""
    new, old, words = (text.split(":", 2) + ["", ""])[:3]
    for name in (new, old):
        if name not in rows:
            raise ValueError(f"--compare {text}: there is no row {name!r}, only {', '.join(rows)}")
    files = [Path(rows[name]["folder"]) / f"{domain}.beam.{tgt_lang}" for name in (new, old)]
    return {"new": new, "old": old, "words": words, **compare(*files, references, tgt_lang)}


def _table(rows, speeds, domain):
    """Cells and headers of the table."""
    headers = ["model", "trained on", "parameters", f"BLEU {domain}", "greedy", "chrF",
               "BLEU general", "MB"]  # fmt: skip
    if speeds:
        headers.append("sentences/s")
    cells = []
    for row in rows.values():
        scored = row["test_sets"][domain]
        beam, greedy = scored["beam"], scored["greedy"]
        general = row["test_sets"][GENERAL]["beam"]["bleu"]
        line = [
            row["name"],
            row["label"],
            f"{row['counts']['parameters'] / 1e6:.2f} M",
            f"{beam['bleu']['score']:.1f} ± {beam['bleu']['interval']:.1f}",
            f"{greedy['bleu']['score']:.1f}",
            f"{beam['chrf']['score']:.1f} ± {beam['chrf']['interval']:.1f}",
            f"{general['score']:.1f} ± {general['interval']:.1f}",
            f"{row['counts']['bytes'] / 1e6:.1f}",
        ]
        if speeds:
            line.append(f"{speeds['sentences_per_second'][row['model']]['beam']:,.0f}")
        cells.append(line)
    return cells, headers


def _text(rows, steps, speeds, domain, notes):
    table = tabulate(*_table(rows, speeds, domain), tablefmt="simple", disable_numparse=True)
    lines = [table, ""]
    if steps:
        lines += [f"What each step bought on {domain} (BLEU, paired bootstrap):"]
        width = max(len(step["words"]) for step in steps)
        for step in steps:
            verdict = "within noise" if step["p_value"] >= NOISE else "significant"
            lines.append(
                f"  {step['words']:<{width}}  {step['difference']:+5.1f}  "
                f"(p = {step['p_value']:.3f}, {verdict}; {step['old']} → {step['new']})"
            )
        lines.append("")
    first = next(iter(rows.values()))
    scored = first["test_sets"][domain]
    lines += [
        f"BLEU: beam {first['beam']}, ± half of the 95 % interval, {scored['lines']:,} sentences; "
        f"{scored['beam']['bleu']['signature']}",
        f"chrF: {scored['beam']['chrf']['signature']}",
        "BLEU, MB and sentences/s are those of the exported model (CTranslate2), as it would ship.",
    ]
    if speeds:
        lines.append(
            f"sentences/s: beam {speeds['beam']}, {speeds['workers']} CPU workers of "
            f"{speeds['threads_per_worker']} thread, {speeds['sentences']:,} sentences in batches"
        )
    return "\n".join([*lines, *notes]) + "\n"


def _tsv(rows, steps, domain):
    lines = ["system\ttest set\tdecoding\tmetric\tscore\tinterval\tsignature"]
    for row in rows.values():
        for test_set in (domain, GENERAL):
            for mode in ("beam", "greedy"):
                for metric, entry in row["test_sets"][test_set][mode].items():
                    values = (entry["score"], entry["interval"], entry["signature"])
                    lines.append(
                        "\t".join(map(str, (row["name"], test_set, mode, metric, *values)))
                    )
    for step in steps:
        values = (step["difference"], step["p_value"], step["signature"])
        lines.append("\t".join(map(str, (f"{step['new']} - {step['old']}", domain, "beam",
                                         "bleu difference", *values))))  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
