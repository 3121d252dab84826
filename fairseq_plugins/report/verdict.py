"""The verdict of a run in words: what to ship, what it rests on, and how sure that is."""

NOISE = 0.05  # p-value from which on a difference is called noise
NEGLIGIBLE = 0.05  # BLEU; it is shown as 0.0
NAMED = 3  # rivals that are named; of more the number is told
POOR = 15  # BLEU below which hardly a sentence is right

GOOD, WARNING, PLAIN = "good", "warning", "plain"


def judge(report):
    """Paragraphs of the verdict, the decision first.

    Args:
        report: what ``findings.find`` has gathered.

    Returns:
        [{"title", "text", "tone": "good", "warning" or "plain", "points": [sentences]}].
    """
    rows = {row["name"]: row for row in report["rows"]}
    parts = []
    if not report["finished"]:
        parts.append(_unfinished(report))
    if report["recommended"] is None:
        parts.append(_nothing_to_ship(report))
    else:
        best = rows[report["recommended"]["name"]]
        parts.append(_choice(report, best, rows))
        parts.append(_distance(report, best, rows))
        parts.append(_speed(report, best, rows))
        parts.append(_forgotten(report, best, rows))
    parts.append(_steps(report))
    parts.append(_certainty(report))
    return [part for part in parts if part]


def p_value(value):
    """A p-value in words: "p = 0.012"; the least that 1,000 resamples can say is 0.001."""
    return "p not known" if value is None else f"p = {value:.3f}"


def signed(value):
    """A difference for people: +0.9, −6.4."""
    return f"{value:+.1f}".replace("-", "−")


def within_noise(step):
    return step["p_value"] is not None and step["p_value"] >= NOISE


def outcome(step):
    """A comparison in a word or two."""
    if step["p_value"] is None:
        return "not tested"
    if abs(step["difference"]) < NEGLIGIBLE:
        return "no difference"  # however sure: scores near 0 differ significantly in nothing
    return "within noise" if within_noise(step) else "significant"


def times(ratio):
    """A ratio for people: 23 ×, 2.3 ×, 0.87 ×."""
    return f"{ratio:,.{0 if ratio >= 10 else 1 if ratio >= 1.05 else 2}f} ×"


def and_so_on(words):
    """"a", "a and b", "a, b and c"."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _part(title, text, tone=PLAIN, points=()):
    return {"title": title, "text": text, "tone": tone, "points": list(points)}


def _bleu(row, place="in_domain"):
    entry = row[place]["beam"]["bleu"] if row.get(place) else None
    return entry["score"] if entry else None


def _unfinished(report):
    states = report["states"]
    done, every = states.get("done", 0), sum(states.values())
    text = f"{done} of {every} stages are done"
    told = [f"{states[name]} {words}" for name, words in
            (("running", "running"), ("stopped", "stopped half-way"), ("to come", "to come"))
            if states.get(name)]  # fmt: skip
    scored = sum(row["state"] == "scored" for row in report["rows"])
    text += f" ({', '.join(told)}), and {scored} of {len(report['rows'])} models have scores. "
    text += "What stands below is what there is so far"
    if states.get("stopped") and not states.get("running"):
        text += "; nothing is running: start the recipe again with the same words and it goes on"
    return _part("This run is not finished", text + ".", WARNING)


def _nothing_to_ship(report):
    other = [row["name"] for row in report["rows"] if row["state"] == "another test set"]
    if other:
        return _part(
            "Nothing to ship",
            f"The scores of {and_so_on(other)} are of another test set than the one in this "
            "folder, so nothing can be said. Start the recipe again: it scores anew.",
            WARNING,
        )
    return _part(
        "Nothing to ship yet", f"No student of {report['domain']} has been scored.", WARNING
    )


def _choice(report, best, rows):
    recommended, domain = report["recommended"], report["domain"]
    score = best["in_domain"]["beam"]["bleu"]
    text = (
        f"It has the highest BLEU on {domain}: {score['score']:.1f} ± {score['interval']:.1f} "
        f"({best['label']})."
    )
    points = []
    rivals = recommended["rivals"]
    if recommended["students"] == 1:
        text += " It is the only student with scores, so there was nothing to choose from."
    elif rivals:
        told = [
            f"{rival['name']} ({signed(rival['difference'])} BLEU, {p_value(rival['p_value'])})"
            for rival in rivals[:NAMED]
        ]
        if len(rivals) > NAMED:
            told.append(f"{len(rivals) - NAMED} more")
        text += f" But {and_so_on(told)} {'is' if len(rivals) == 1 else 'are'} within noise of it"
        text += ": this test set cannot tell them apart, so take what is fastest, or easiest to "
        text += "make."
        if any(rival["p_value"] is None for rival in rivals):
            text = text.replace("within noise of it", "not known to be worse")
    else:
        text += f" All {recommended['students'] - 1} others are significantly worse."
    start = next((step for step in report["steps"]
                  if step["new"] == best["name"] and step["old"] == recommended["start"]), None)
    if start and (within_noise(start) or start["difference"] <= 0):
        points.append(
            f"Adapting did not pay: it is {signed(start['difference'])} BLEU from {start['old']}, "
            f"which has seen no {domain} text ({p_value(start['p_value'])})."
        )
    if score["score"] < POOR:
        points.append(
            f"A BLEU of {score['score']:.1f} is low: hardly a sentence is right. Read the "
            "sentences below before anybody has to rely on it."
        )
    if not report["finished"]:
        heading = f"Student {best['name']} is the best so far"
    elif points:
        heading = f"Student {best['name']} is the best there is"
    else:
        heading = f"Ship student {best['name']}"
    sure = report["finished"] and not points and not rivals
    return _part(heading, text, GOOD if sure else WARNING, points)


def _distance(report, best, rows):
    name = report["recommended"]["teacher"]
    teacher = rows.get(name)
    if teacher is None or _bleu(teacher) is None:
        return None
    step = next((step for step in report["steps"]
                 if (step["new"], step["old"]) == (best["name"], name)), None)
    own, other = _bleu(best), _bleu(teacher)
    difference = own - other
    text = f"{abs(difference):.1f} BLEU {'below' if difference < 0 else 'above'} the {name} "
    text += f"({other:.1f} → {own:.1f}"
    text += f", {p_value(step['p_value'])}, {outcome(step)})" if step else ")"
    if difference < 0 and other > 0:
        text += f": it keeps {100 * own / other:.0f} % of its teacher's BLEU"
    return _part("How far from its teacher", text + ".")


def _speed(report, best, rows):
    teacher = rows.get(report["recommended"]["teacher"])
    if teacher is None:
        return None
    told = []
    for mode, words in (("beam", f"with beam {best['beam']}"), ("greedy", "greedily")):
        speeds = [_rate(row, mode) for row in (best, teacher)]
        if all(speeds):
            told.append(
                f"{times(speeds[0] / speeds[1])} the sentences a second {words} "
                f"({speeds[0]:,.0f} against {speeds[1]:,.0f})"
            )
    if best["bytes"] and teacher["bytes"]:
        told.append(
            f"{_share(best['bytes'] / teacher['bytes'])} of the size "
            f"({best['bytes'] / 1e6:.1f} against {teacher['bytes'] / 1e6:.1f} MB)"
        )
    if not told:
        return None
    text = f"Against the {teacher['name']}, exported the same way: {and_so_on(told)}."
    if not any(_rate(best, mode) for mode in ("beam", "greedy")):
        text += " Its speed has not been measured yet."
    return _part("How much faster and smaller", text)


def _share(ratio):
    return f"1/{1 / ratio:.0f}" if ratio < 0.15 else f"{100 * ratio:.0f} %"


def _rate(row, mode):
    return ((row["speed"] or {}).get(mode) or {}).get("sentences_per_second")


def _forgotten(report, best, rows):
    found = next((entry for entry in report["forgetting"] if entry["name"] == best["name"]), None)
    if found is None:
        general = _bleu(best, "general")
        if general is None:
            return None
        text = f"It started from nothing, so it had nothing to forget; general BLEU {general:.1f}."
        return _part("What it forgot of the general domain", text)
    before, after = found["general"]
    gained = found["in_domain"][1] - found["in_domain"][0]
    text = f"General BLEU went from {before:.1f} ({found['start']}) to {after:.1f} while "
    text += f"{report['domain']} went {signed(gained)}"
    interval = best["general"]["beam"]["bleu"]["interval"]
    if before - after > interval:
        share = (before - after) / before if before else 0
        text += f": {100 * share:.0f} % of the general BLEU is lost. "
        text += f"Use it for {report['domain']} alone; --adapt replay=0.25 keeps more."
        return _part("What it forgot of the general domain", text)
    return _part("What it forgot of the general domain", text + ": next to nothing was lost.")


def _steps(report):
    steps = [step for step in report["steps"] if step["kind"] == "step"]
    if not steps:
        return None
    noise = [step for step in steps if within_noise(step)]
    points = [
        f"{step['words']}: {signed(step['difference'])} BLEU, {outcome(step)} "
        f"({p_value(step['p_value'])})"
        for step in steps
    ]
    text = f"On {report['domain']}, by paired bootstrap on the same sentences."
    if noise:
        text += f" {len(noise)} of {len(steps)} within noise: do not build on those numbers."
    return _part("What each step bought", text, PLAIN, points)


def _certainty(report):
    scored = next((row["in_domain"] for row in report["rows"] if row["in_domain"]), None)
    if scored is None:
        return None
    seeds = report["provenance"]["seeds"]
    text = f"The intervals and p-values speak of the choice of {scored['lines']:,} test sentences."
    if len(seeds) <= 1:
        text += (
            f" Every model was trained once{f' (seed {seeds[0]})' if seeds else ''}, and one run "
            "is one draw: training again with another seed moves scores, too, often by more than "
            "a small step."
        )
    if report["recommended"] and report["recommended"]["students"] > 1:
        text += (
            " The student above was chosen by the same sentences, so its own score flatters it a "
            "little."
        )
    tested = [step for step in report["steps"] if step["p_value"] is not None]
    if len(tested) > 1:
        text += (
            f" Of {len(tested)} comparisons about {NOISE * len(tested):.1f} would look "
            "significant even if nothing differed at all."
        )
    return _part("How sure this is", text)
