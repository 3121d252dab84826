"""The verdict of a run in words: what to ship, what it rests on, and how sure that is."""

from fairseq_plugins.report import advice, claims
from fairseq_plugins.report.choice import TEST
from fairseq_plugins.report.comparisons import (
    NOISE,
    NOT_TESTED,
    RULE,
    SIGNIFICANT,
    grounds,
    in_words,
    is_gain,
    is_loss,
    p_values,
    signed,
)

NAMED = 3  # rivals that are named; of more the number is told
MUCH_SMALLER = 0.9  # share of the bytes below which a model is called smaller
POOR = 15  # BLEU below which hardly a sentence is right

GOOD, WARNING, PLAIN = "good", "warning", "plain"


def judge(report):
    """Paragraphs of the verdict, the decision first.

    Args:
        report: what ``findings.find`` has gathered.

    Returns:
        [{"title", "text", "tone": "good", "warning" or "plain", "points": [sentences]}].
    """
    groups = {group["name"]: group for group in report["groups"]}
    parts = []
    if not report["finished"]:
        parts.append(_unfinished(report))
    if report["recommended"] is None:
        parts.append(_nothing_to_ship(report))
    else:
        best = groups[report["recommended"]["name"]]
        parts.append(_choice(report, best))
        parts.append(_distance(report, best, groups))
        parts.append(_speed(report, best, groups))
        parts.append(_forgotten(report, best))
        parts.append(_sizes(report, best, groups))
    parts += [_claim(report, entry) for entry in report["claims"] if entry["main"]]
    parts.append(_multi_domain(report))
    parts.append(_advice(report))
    parts.append(_steps(report))
    parts.append(_certainty(report))
    return [part for part in parts if part]


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
    scored = sum(row["in_domain"] is not None for row in report["rows"])
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


def _choice(report, best):
    recommended, domain = report["recommended"], report["domain"]
    score = best["in_domain"]["beam"]["bleu"]
    several = len(best["seeds"]) > 1
    on_test = f"{score['score']:.1f} ± {score['interval']:.1f} BLEU on the test set of {domain}"
    if several:
        on_test += f", mean of {len(best['seeds'])} seeds"
    rivals = recommended["rivals"]
    if recommended["by"] == TEST:
        text = (
            "No student has a dev BLEU that is known, so the test set chose, which it should not: "
            f"the score flatters the student a little. It has the highest BLEU there, {on_test}"
        )
    else:
        mean = ", mean of its seeds" if several else ""
        text = (
            f"The dev set chose it: its dev BLEU of {recommended['dev']:.1f} (greedy decoding"
            f"{mean}) is the highest. It has {on_test}"
        )
    text += f" ({best['label']})."
    if several:
        text += f" Of its seeds take {recommended['row']}: {_why_row(recommended)}."
    if left_out := recommended["left_out"]:
        text += (
            f" The dev BLEU of {and_so_on(left_out)} is not known or of another dev set, so the "
            "dev set had no say on them."
        )
    better = [rival for rival in rivals if is_gain(rival)]
    equal = [rival for rival in rivals if rival not in better and rival["outcome"] != NOT_TESTED]
    untested = [rival for rival in rivals if rival["outcome"] == NOT_TESTED]
    if recommended["students"] == 1:
        text += " It is the only student with scores, so there was nothing to choose from."
    elif not rivals:
        others = recommended["students"] - 1
        text += " The other student is" if others == 1 else f" All {others} others are"
        text += " significantly worse on the test set."
    if better:
        text += f" On the test set {_told(better)} {_are(better)} significantly better: the dev "
        text += "set is small, or does not look like the test set. To choose by the test set now "
        text += "would make its scores worthless."
    if equal:
        text += f" {_told(equal)} {_are(equal)} within noise of it on the test set, which cannot "
        text += "tell them apart, so take what is fastest, or easiest to make."
    if untested:
        text += f" {_told(untested)} {_are(untested)} not known to be worse."
    points = []
    start = next((step for step in report["steps"]
                  if step["new"] == best["name"] and step["old"] == recommended["start"]), None)
    if start and start["outcome"] != NOT_TESTED and not is_gain(start):
        points.append(
            f"Adapting did not pay: it is {signed(start['difference'])} BLEU from {start['old']}, "
            f"which has seen no {domain} text ({p_values(start)})."
        )
    if score["score"] < POOR:
        points.append(
            f"A BLEU of {score['score']:.1f} is low: hardly a sentence is right. Read "
            "what it makes of your text before anybody has to rely on it."
        )
    if not report["finished"]:
        heading = f"Student {best['name']} is the best so far"
    elif points:
        heading = f"Student {best['name']} is the best there is"
    else:
        heading = f"Ship student {best['name']}"
    sure = report["finished"] and not (points or rivals or recommended["by"] == TEST)
    return _part(heading, text, GOOD if sure else WARNING, points)


def _why_row(recommended):
    if recommended["dev"] is None:
        return "the first, for no dev BLEU is known"
    return "it has the highest dev BLEU of them"


def _told(rivals):
    """The first students of a list with their differences, and how many more there are."""
    told = [f"{rival['new']} ({signed(rival['difference'])} BLEU, {p_values(rival)})"
            for rival in rivals[:NAMED]]  # fmt: skip
    if len(rivals) > NAMED:
        told.append(f"{len(rivals) - NAMED} more")
    return and_so_on(told)


def _are(rivals):
    return "is" if len(rivals) == 1 else "are"


def _distance(report, best, groups):
    step = report["to_teacher"]
    if step is None:
        return None
    own, other = _bleu(best), _bleu(groups[step["old"]])
    text = f"{abs(own - other):.1f} BLEU {'below' if own < other else 'above'} the {step['old']} "
    text += f"({other:.1f} → {own:.1f}), {grounds(step)}"
    if own < other:
        text += f". It keeps {100 * own / other:.0f} % of its teacher's BLEU"
    return _part("How far from its teacher", text + ".")


def _speed(report, best, groups):
    teacher = groups.get(report["recommended"]["teacher"])
    if teacher is None:
        return None
    told = []
    for mode, words in (("beam", f"with beam {best['beam']}"), ("greedy", "greedily")):
        speeds = [_rate(group, mode) for group in (best, teacher)]
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
    elif len(best["rows"]) > 1:
        text += f" Of each group one seed was timed, here {best['speed_of']}."
    return _part("How much faster and smaller", text)


def _share(ratio):
    return f"1/{1 / ratio:.0f}" if ratio < 0.15 else f"{100 * ratio:.0f} %"


def _rate(row, mode):
    return ((row["speed"] or {}).get(mode) or {}).get("sentences_per_second")


def _forgotten(report, best):
    title = "What it forgot of the general domain"
    found = next((entry for entry in report["forgetting"] if entry["name"] == best["name"]), None)
    if found is None:
        general = _bleu(best, "general")
        if general is None or report["recommended"]["start"]:
            return None
        text = f"It started from nothing, so it had nothing to forget; general BLEU {general:.1f}."
        return _part(title, text)
    before, after = found["general"]
    comparison = found["comparison"]
    gained = found["in_domain"][1] - found["in_domain"][0]
    text = f"General BLEU went from {before:.1f} ({found['start']}) to {after:.1f} while "
    text += f"{report['domain']} went {signed(gained)}; on the general test set that is "
    text += f"{in_words(comparison)}. "
    if is_loss(comparison):
        share = (before - after) / before if before else 0
        text += f"{100 * share:.0f} % of the general BLEU is lost. "
        text += f"Use it for {report['domain']} alone; --adapt replay=0.25 keeps more."
    elif comparison["outcome"] == NOT_TESTED:
        text += "Whether that is a loss could not be tested."
    else:
        text += "No loss can be told from noise."
    return _part(title, text)


def _sizes(report, best, groups):
    """The students that would be chosen of the other sizes."""
    points = []
    for entry in report["recommended"]["sizes"]:
        if entry["comparison"] is None:
            continue
        other = groups[entry["name"]]
        point = f"{entry['size']}: {entry['name']}, {in_words(entry['comparison'])}"
        rates = [_rate(group, "beam") for group in (other, best)]
        if all(rates):
            point += f"; {times(rates[0] / rates[1])} the sentences a second"
        if other["bytes"] and best["bytes"]:
            point += f"; {_share(other['bytes'] / best['bytes'])} of the size"
            if other["bytes"] < MUCH_SMALLER * best["bytes"] and not is_loss(entry["comparison"]):
                point += ". It is smaller and not known to be worse: ship it if size matters"
        points.append(point + ".")
    if not points:
        return None
    text = f"What the dev set would choose of each other size, against {best['name']}."
    return _part("Across sizes", text, PLAIN, points)


def _claim(report, entry):
    main = entry["main"]
    text = f"{entry['words']} The paper: {entry['paper']}. Here {main['old']} → {main['new']}: "
    text += in_words(main)
    if entry["says"] != main["outcome"]:
        text += f": {entry['says']}"
    text += f", {entry['why']}." if entry["why"] else "."
    points = [f"{other['old']} → {other['new']}: {in_words(other)}" for other in entry["others"]]
    title = f"{entry['title']}: {entry['says']}"
    return _part(_of_size(report, entry, title), text, PLAIN, points)


def _of_size(report, entry, title):
    """A title that names the size where there are several, and where it matters."""
    return f"{title} ({entry['size']})" if len(report["sizes"]) > 1 and entry["size"] else title


def _multi_domain(report):
    points = [f"{found['new']} against {found['old']}: {in_words(found)}"
              for found in report["multi_domain"]]  # fmt: skip
    if not points:
        return None
    return _part(
        "One student for all domains", f"Against the student of {report['domain']} alone.", PLAIN,
        points,
    )  # fmt: skip


def _advice(report):
    points = []
    for entry in report["advice"]:
        evidence = "; ".join(f"{found['old']} → {found['new']}: {in_words(found)}"
                             for found in entry["evidence"])  # fmt: skip
        title = _of_size(report, entry, entry["title"])
        points.append(" ".join(filter(None, (f"{title}.", entry["text"], f"{evidence}."))))
    if not points:
        return None
    return _part("Advice for the next run", advice.THRESHOLD, PLAIN, points)


def _steps(report):
    steps = [step for step in report["steps"] if step["kind"] == "step"]
    if not steps:
        return None
    noise = [step for step in steps if step["outcome"] not in (SIGNIFICANT, NOT_TESTED)]
    points = []
    for step in steps:
        of = f" ({step['old']} → {step['new']})" if len(report["sizes"]) > 1 else ""
        points.append(f"{step['words']}{of}: {in_words(step)}")
    text = f"On {report['domain']}, by paired bootstrap on the same sentences."
    if noise:
        text += f" {len(noise)} of {len(steps)} within noise: do not build on those numbers."
    return _part("What each step bought", text, PLAIN, points)


def _certainty(report):
    scored = next((row["in_domain"] for row in report["rows"] if row["in_domain"]), None)
    if scored is None:
        return None
    text = f"The intervals and p-values speak of the choice of {scored['lines']:,} test sentences."
    most = max(len(group["seeds"]) for group in report["groups"])
    if most <= 1:
        seeds = report["provenance"]["seeds"]
        text += (
            f" Every model was trained once (seed {seeds[0]}), and one run is one draw: training "
            "again with another seed moves scores, too, often by more than a small step."
        )
    else:
        text += f" Scores are means over up to {most} seeds. {RULE}"
        if any(len(group["rows"]) == 1 for group in report["groups"]):
            text += (
                " A model that was trained once, as the teachers are, stands against every seed "
                "of the others, so nothing here speaks of its own seed."
            )
    tests = sum(entry["p_value"] is not None for step in report["steps"] for entry in step["seeds"])
    if tests > 1:
        text += (
            f" Of {tests} comparisons of two models about {NOISE * tests:.1f} would look "
            "significant even if nothing differed at all."
        )
    checked = [entry["says"] for entry in report["claims"]]
    if claims.CANNOT_TELL in checked:
        text += " Not every claim of the paper could be checked: the models for it are missing."
    return _part("How sure this is", text)
