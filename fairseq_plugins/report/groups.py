"""Rows that differ in their seed alone, as one: means over the seeds."""

import statistics

MODES = ("beam", "greedy")
SCORED = "scored"


def grouped(rows):
    """{name: group} of the rows of a table, in its order.

    A group has what a row has (see ``findings``), of the scores the mean over its seeds. Beside it:

      rows           names of its rows, in order
      seeds          those with scores
      state          "scored", or "2 of 3 seeds scored", or the state of all its rows
      a metric's     "score" and "interval" are means; "deviation" is the standard deviation of the
                     score over the seeds, null for one

    Args:
        rows: of one table, with their speed.
    """
    members = {}
    for row in rows:
        members.setdefault(row["group"], []).append(row)
    return {name: _group(name, found) for name, found in members.items()}


def _group(name, rows):
    scored = [row for row in rows if row["in_domain"]]
    known = scored[0] if scored else rows[0]
    return {
        **known,
        "name": name,
        "rows": [row["name"] for row in rows],
        "seeds": [row["seed"] for row in scored],
        "state": _state(rows, scored),
        "dev": _dev(scored),
        "in_domain": _mean_scores([row["in_domain"] for row in scored]),
        "general": _mean_scores([row["general"] for row in rows if row["general"]]),
    }


def _state(rows, scored):
    if 0 < len(scored) < len(rows):
        return f"{len(scored)} of {len(rows)} seeds scored"
    return rows[0]["state"]


def _dev(rows):
    """Mean dev BLEU of rows with scores, as of one row; None where one of them has no dev BLEU."""
    found = [row["dev"] for row in rows]
    if not found or None in found or len({dev["set"] for dev in found}) > 1:
        return None
    return {"bleu": statistics.fmean(dev["bleu"] for dev in found), "set": found[0]["set"]}


def _mean_scores(entries):
    """What dad-evaluate wrote of a test set, as means over the seeds."""
    if not entries:
        return None
    found = dict(entries[0])
    for mode in MODES:
        if mode in found:
            found[mode] = _mean_metrics([entry.get(mode) or {} for entry in entries])
    if "indicators" in found:
        found["indicators"] = _mean_indicators([entry.get("indicators") or {} for entry in entries])
    return found


def _mean_metrics(entries):
    found = {}
    for metric, first in entries[0].items():
        if not isinstance(first, dict) or "score" not in first:
            found[metric] = first
            continue
        scored = [entry[metric] for entry in entries if entry.get(metric)]
        deviation = statistics.stdev(entry["score"] for entry in scored) if scored[1:] else None
        means = {name: _mean(scored, name) for name in ("score", "interval")}
        found[metric] = {**first, **means, "deviation": deviation}
    return found


def _mean_indicators(entries):
    """Mean values; counts are added up."""
    found = {}
    for key in dict.fromkeys(key for entry in entries for key in entry):
        known = [entry[key] for entry in entries if isinstance(entry.get(key), dict)]
        if known:
            found[key] = {**known[0], "value": _mean(known, "value")}
            for name in ("count", "of"):
                if name in found[key]:
                    found[key][name] = sum(entry.get(name) or 0 for entry in known)
    return found


def _mean(entries, name):
    values = [entry[name] for entry in entries if entry.get(name) is not None]
    return statistics.fmean(values) if values else None
