"""Two models on one test set, seed by seed: what the new one gains, and whether that is noise.

A comparison is a dictionary of plain values:

  new, old     names of the groups
  difference   BLEU, mean over the seeds
  deviation    standard deviation over the seeds; null for one seed
  low, high    smallest and largest difference of a seed
  interval     half of the 95 % t interval over the seeds; null for fewer than 3
  seeds        [{"seed", "new", "old": rows, "difference", "p_value", "signature"}]
  outcome      "significant", "within noise", "no difference" or "not tested"
"""

import statistics

from fairseq_plugins.evaluation.comparison import compare

NOISE = 0.05  # p-value from which on a difference is called noise
NEGLIGIBLE = 0.05  # BLEU; it is shown as 0.0
FEWEST_FOR_INTERVAL = 3  # seeds

SIGNIFICANT, WITHIN_NOISE = "significant", "within noise"
NO_DIFFERENCE, NOT_TESTED = "no difference", "not tested"

RULE = (
    "The paired bootstrap asks whether other test sentences could turn a difference round, the "
    f"seeds ask whether another training could. A difference counts as significant if p < {NOISE} "
    "for more than half of the seeds, all seeds agree on its sign and, from "
    f"{FEWEST_FOR_INTERVAL} seeds on, the 95 % t interval of the differences over the seeds "
    "leaves out 0. Else it is called within noise: the rule errs on that side."
)


class Comparer:
    """Compares groups of a domain's table; what was compared once is remembered.

    Args:
        run: ``run.Run``.
        domain: one of its domains.
        groups: {name: group}, see ``groups.grouped``.
        rows: {name: row}, see ``findings``.
        progress: called after each comparison of two models, the slow part.
    """

    def __init__(self, run, domain, groups, rows, progress=lambda: None):
        self._run, self._domain, self._progress = run, domain, progress
        self._groups, self._rows = groups, rows
        self._compared, self._counted = {}, {"in_domain": {}, "general": {}}

    def compare(self, new, old, place="in_domain"):
        """The comparison of two groups, by name; None as long as no pair of them has scores.

        Args:
            place: "in_domain" or "general": whose test set.
        """
        varied = 1 if self._has_seeds(old) and not self._has_seeds(new) else 0
        found = [
            {"seed": rows[varied]["seed"], "new": rows[0]["name"], "old": rows[1]["name"],
             **self._pair(*rows, place)}
            for rows in self._pairs(new, old, place)
        ]  # fmt: skip
        return {"new": new, "old": old, **over_seeds(found)} if found else None

    def _has_seeds(self, name):
        return len(self._groups[name]["rows"]) > 1

    def _pairs(self, new, old, place):
        """Rows of the same seed, or with the only row of a group."""
        rows = [
            [row for name in self._groups[group]["rows"] if bleu(row := self._rows[name], place)
             is not None]
            for group in (new, old)
        ]  # fmt: skip
        is_alone = not (self._has_seeds(new) and self._has_seeds(old))
        return [
            (one, other) for one in rows[0] for other in rows[1]
            if is_alone or one["seed"] == other["seed"]
        ]  # fmt: skip

    def _pair(self, new, old, place):
        key = new["model"], old["model"], place
        if key not in self._compared:
            self._compared[key] = self._tested(new, old, place)
            self._progress()
        return self._compared[key]

    def _tested(self, new, old, place):
        test_set = self._domain if place == "in_domain" else place
        files = [self._run.translations(self._domain, row["model"], test_set) for row in (new, old)]
        paths = self._run.test_set(test_set)
        if paths and all(files):
            try:
                return compare(*files, paths["references"], self._run.target_lang,
                               known=self._counted[place])  # fmt: skip
            except ValueError as error:
                self._run.note(str(error))
        else:
            self._run.note(f"{new['name']} and {old['name']} have no translations left to compare")
        return untested(bleu(new, place) - bleu(old, place))


def bleu(row, place="in_domain"):
    """Beam BLEU of a row or a group, or None."""
    for name in (place, "beam", "bleu", "score"):
        row = row.get(name) if isinstance(row, dict) else None
    return row


def untested(difference):
    """What ``compare`` would say, of a difference that could not be tested."""
    return {"difference": round(difference, 2), "p_value": None, "signature": None}


def over_seeds(found):
    """A comparison, but for the names of its groups, of one entry of ``seeds`` for each seed."""
    differences = [entry["difference"] for entry in found]
    several = len(found) > 1
    comparison = {
        "difference": round(statistics.fmean(differences), 2),
        "deviation": round(statistics.stdev(differences), 2) if several else None,
        "low": min(differences), "high": max(differences),
        "interval": _interval(differences), "seeds": found,
    }  # fmt: skip
    return {**comparison, "outcome": outcome(comparison)}


def outcome(comparison):
    """A comparison in a word or two; see ``RULE``."""
    tested = [entry["p_value"] for entry in comparison["seeds"] if entry["p_value"] is not None]
    difference, interval = comparison["difference"], comparison["interval"]
    if not tested:
        return NOT_TESTED
    if abs(difference) < NEGLIGIBLE:
        return NO_DIFFERENCE  # however sure: scores near 0 differ significantly in nothing
    significant = sum(p_value < NOISE for p_value in tested)
    agree = comparison["low"] > 0 or comparison["high"] < 0
    leaves_out_0 = interval is None or abs(difference) > interval
    if 2 * significant > len(comparison["seeds"]) and agree and leaves_out_0:
        return SIGNIFICANT
    return WITHIN_NOISE


def is_gain(comparison):
    """Whether the new group is significantly better."""
    return comparison["outcome"] == SIGNIFICANT and comparison["difference"] > 0


def is_loss(comparison):
    """Whether the new group is significantly worse."""
    return comparison["outcome"] == SIGNIFICANT and comparison["difference"] < 0


def tone(comparison):
    """How a page marks an outcome: "good", "loss", or "noise" where nothing can be built on it."""
    return "good" if is_gain(comparison) else "loss" if is_loss(comparison) else "noise"


def p_value(value):
    """A p-value in words: "p = 0.012"; the least that 1,000 resamples can say is 0.001."""
    return "p not known" if value is None else f"p = {value:.3f}"


def p_values(comparison):
    """The p-value of each seed in words: "p = 0.012, 0.210"."""
    values = [entry["p_value"] for entry in comparison["seeds"]]
    if len(values) == 1 or not any(value is not None for value in values):
        return p_value(values[0])
    return "p = " + ", ".join("?" if value is None else f"{value:.3f}" for value in values)


def p_cell(comparison):
    """The p-values for a table: "0.012, 0.210", a dash where none is known."""
    told = p_values(comparison)
    return told.removeprefix("p = ") if told.startswith("p = ") else "–"


def signed(value):
    """A difference for people: +0.9, −6.4."""
    return f"{value:+.1f}".replace("-", "−")


def spread(comparison):
    """The differences of several seeds in words, '' for one: "−0.1 to +0.9 over 3 seeds"."""
    if len(comparison["seeds"]) == 1:
        return ""
    return (
        f"{signed(comparison['low'])} to {signed(comparison['high'])} over "
        f"{len(comparison['seeds'])} seeds"
    )


def grounds(comparison):
    """What the outcome rests on: "significant (−0.1 to +0.9 over 3 seeds; p = 0.1, 0.2, 0.1)"."""
    told = "; ".join(filter(None, (spread(comparison), p_values(comparison))))
    return f"{comparison['outcome']} ({told})"


def in_words(comparison):
    """A comparison for people: "+0.9 BLEU, significant (p = 0.012)"."""
    return f"{signed(comparison['difference'])} BLEU, {grounds(comparison)}"


def _interval(differences):
    if len(differences) < FEWEST_FOR_INTERVAL:
        return None
    from scipy.stats import t

    spread = statistics.stdev(differences) / len(differences) ** 0.5
    return round(float(t.ppf(0.975, len(differences) - 1)) * spread, 2)
