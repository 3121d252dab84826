"""The table of a run as text: for the screen, for Markdown, and its scores alone."""

from tabulate import tabulate

from fairseq_plugins.report.comparisons import p_values, spread

MODES = ("beam", "greedy")


def headers(report):
    """Names of the columns; TER and speed only where they are known."""
    names = ["model", "trained on", "parameters"]
    if has_seeds(report):
        names.append("seeds")
    names += [f"BLEU {report['domain']}", "greedy", "chrF"]
    if _has_ter(report):
        names.append("TER")
    names += ["BLEU general", "MB"]
    if _has_speed(report):
        names.append("sentences/s")
    return names


def cells(report):
    """A list of texts for each row; what is not known is a dash."""
    lines = []
    for row in report["groups"]:
        beam, greedy = mode_of(row, "beam"), mode_of(row, "greedy")
        line = [
            row["name"],
            row["label"],
            f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "–",
        ]
        if has_seeds(report):
            line.append(str(len(row["seeds"])))
        line += [
            with_interval(beam, "bleu"),
            f"{greedy['bleu']['score']:.1f}" if greedy.get("bleu") else "–",
            with_interval(beam, "chrf"),
        ]
        if _has_ter(report):
            line.append(with_interval(beam, "ter"))
        line += [
            with_interval(mode_of(row, "beam", "general"), "bleu"),
            f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else "–",
        ]
        if _has_speed(report):
            rate = ((row["speed"] or {}).get("beam") or {}).get("sentences_per_second")
            line.append(f"{rate:,.0f}" if rate else "–")
        lines.append(line)
    return lines


def mode_of(row, mode, place="in_domain"):
    """Scores of a row by metric, {} where there are none."""
    return (row[place] or {}).get(mode) or {}


def with_interval(scores, metric):
    """A score with half of its 95 % interval, and its deviation over several seeds."""
    entry = scores.get(metric)
    if not entry:
        return "–"
    deviation = entry.get("deviation")
    told = f" (sd {deviation:.1f})" if deviation is not None else ""
    return f"{entry['score']:.1f} ± {entry['interval']:.1f}{told}"


def as_text(report):
    """table.txt, which is printed, too."""
    table = tabulate(cells(report), headers(report), tablefmt="simple", disable_numparse=True)
    lines = [table, ""]
    if report["steps"]:
        lines += [f"What each step bought on {report['domain']} (BLEU, paired bootstrap):"]
        width = max(len(step["words"]) for step in report["steps"])
        for step in report["steps"]:
            told = filter(None, (spread(step), p_values(step), step["outcome"]))
            lines.append(
                f"  {step['words']:<{width}}  {step['difference']:+5.1f}  "
                f"({', '.join(told)}; {step['old']} → {step['new']})"
            )
        lines.append("")
    lines += notes(report)
    if not report["finished"]:
        states = report["states"]
        lines.append(
            f"This run is not finished: {states.get('done', 0)} of {sum(states.values())} stages "
            "are done."
        )
    lines += [f"Note: {problem}" for problem in report["problems"]]
    return "\n".join(lines).rstrip("\n") + "\n"


def notes(report):
    """What the columns mean, with signatures."""
    lines = []
    first = next((row for row in report["groups"] if row["in_domain"]), None)
    if first:
        scored = first["in_domain"]
        lines = [
            f"BLEU: beam {first['beam']}, ± half of the 95 % interval, {scored['lines']:,} "
            f"sentences; {scored['beam']['bleu']['signature']}"
        ]
        if has_seeds(report):
            lines.append(
                "Scores are means over seeds, and so are their intervals, which speak of test "
                "sentences; sd: standard deviation of the score over the seeds."
            )
        for metric, name in (("chrf", "chrF"), ("ter", "TER")):
            if scored["beam"].get(metric):
                lines.append(f"{name}: {scored['beam'][metric]['signature']}")
        lines.append(
            "BLEU, MB and sentences/s are those of the exported model (CTranslate2), as it would "
            "ship."
        )
    speed = report["speed"]
    if speed and first:
        lines.append(
            f"sentences/s: beam {speed.get('beam')}, {speed.get('workers')} CPU workers of "
            f"{speed.get('threads_per_worker')} thread, {speed.get('sentences', 0):,} sentences "
            "in batches"
        )
    return lines


def as_markdown(report):
    """table.md."""
    return tabulate(cells(report), headers(report), tablefmt="github", disable_numparse=True) + "\n"


def as_tsv(report):
    """scores.tsv: the scores alone, so that the same scores give the same bytes.

    Every model has its rows; of those that differ in their seed alone there are means, too, with
    the number of seeds and the standard deviation over them.
    """
    lines = ["system\ttest set\tdecoding\tmetric\tscore\tinterval\tsignature\tseeds\tdeviation"]
    means = [group for group in report["groups"] if len(group["rows"]) > 1]
    for row in [*report["rows"], *means]:
        seeds = len(row.get("seeds", [row["seed"]]))
        for place, test_set in (("in_domain", report["domain"]), ("general", "general")):
            for mode in MODES:
                for metric, entry in mode_of(row, mode, place).items():
                    if isinstance(entry, dict) and "signature" in entry:
                        values = (entry["score"], entry["interval"], entry["signature"], seeds,
                                  _cell(entry.get("deviation")))  # fmt: skip
                        lines.append(
                            "\t".join(map(str, (row["name"], test_set, mode, metric, *values)))
                        )
    for step in report["steps"]:
        for entry in step["seeds"]:
            if entry["p_value"] is not None:
                values = (entry["difference"], entry["p_value"], entry["signature"], 1, "")
                name = f"{entry['new']} - {entry['old']}"
                lines.append(_difference(report, name, values))
        if len(step["seeds"]) > 1:
            values = (step["difference"], "", "", len(step["seeds"]), _cell(step["deviation"]))
            lines.append(_difference(report, f"{step['new']} - {step['old']}", values))
    return "\n".join(lines) + "\n"


def _difference(report, name, values):
    return "\t".join(map(str, (name, report["domain"], "beam", "bleu difference", *values)))


def _cell(deviation):
    return "" if deviation is None else round(deviation, 4)


def has_seeds(report):
    """Whether some model was trained with several seeds."""
    return any(len(group["rows"]) > 1 for group in report["groups"])


def _has_ter(report):
    return any(mode_of(row, "beam").get("ter") for row in report["rows"])


def _has_speed(report):
    return report["speed"] is not None
