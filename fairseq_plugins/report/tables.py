"""The table of a run as text: for the screen, for Markdown, and its scores alone."""

from tabulate import tabulate

from fairseq_plugins.report.verdict import outcome, p_value

MODES = ("beam", "greedy")


def headers(report):
    """Names of the columns; TER and speed only where they are known."""
    names = ["model", "trained on", "parameters", f"BLEU {report['domain']}", "greedy", "chrF"]
    if _has_ter(report):
        names.append("TER")
    names += ["BLEU general", "MB"]
    if _has_speed(report):
        names.append("sentences/s")
    return names


def cells(report):
    """A list of texts for each row; what is not known is a dash."""
    lines = []
    for row in report["rows"]:
        beam, greedy = mode_of(row, "beam"), mode_of(row, "greedy")
        line = [
            row["name"],
            row["label"],
            f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "–",
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
    """A score with half of its 95 % interval."""
    entry = scores.get(metric)
    return f"{entry['score']:.1f} ± {entry['interval']:.1f}" if entry else "–"


def as_text(report):
    """table.txt, which is printed, too."""
    table = tabulate(cells(report), headers(report), tablefmt="simple", disable_numparse=True)
    lines = [table, ""]
    if report["steps"]:
        lines += [f"What each step bought on {report['domain']} (BLEU, paired bootstrap):"]
        width = max(len(step["words"]) for step in report["steps"])
        for step in report["steps"]:
            lines.append(
                f"  {step['words']:<{width}}  {step['difference']:+5.1f}  "
                f"({p_value(step['p_value'])}, {outcome(step)}; {step['old']} → {step['new']})"
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
    first = next((row for row in report["rows"] if row["in_domain"]), None)
    if first:
        scored = first["in_domain"]
        lines = [
            f"BLEU: beam {first['beam']}, ± half of the 95 % interval, {scored['lines']:,} "
            f"sentences; {scored['beam']['bleu']['signature']}"
        ]
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
    """scores.tsv: the scores alone, so that the same scores give the same bytes."""
    lines = ["system\ttest set\tdecoding\tmetric\tscore\tinterval\tsignature"]
    for row in report["rows"]:
        for place, test_set in (("in_domain", report["domain"]), ("general", "general")):
            for mode in MODES:
                for metric, entry in mode_of(row, mode, place).items():
                    if isinstance(entry, dict) and "signature" in entry:
                        values = (entry["score"], entry["interval"], entry["signature"])
                        lines.append(
                            "\t".join(map(str, (row["name"], test_set, mode, metric, *values)))
                        )
    for step in report["steps"]:
        if step["p_value"] is not None:
            values = (step["difference"], step["p_value"], step["signature"])
            lines.append("\t".join(map(str, (f"{step['new']} - {step['old']}", report["domain"],
                                             "beam", "bleu difference", *values))))  # fmt: skip
    return "\n".join(lines) + "\n"


def _has_ter(report):
    return any(mode_of(row, "beam").get("ter") for row in report["rows"])


def _has_speed(report):
    return report["speed"] is not None
