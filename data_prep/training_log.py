"""fairseq's training log in fewer words."""

import json
import re

STAGE = "train.sh: "  # begins what the stage's own script says
_ENTRY = re.compile(r"\| INFO \| (train_inner|valid\w*) \| (\{.*\})\s*$")
_PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+)")


def read_entries(lines):
    """Yield (kind, {name: number}) for the entries of a log with ``--log-format json``.

    Kind is ``train_inner`` or the name of a validation subset.
    """
    for line in lines:
        if match := _ENTRY.search(line):
            entry = json.loads(match[2])
            yield match[1], {name: _number(value) for name, value in entry.items()}


def summarise(line):
    """A short line for the screen, or None for a log line that people need not see."""
    if line.startswith(STAGE):
        return line.removeprefix(STAGE).rstrip("\n")
    if match := _PARAMETERS.search(line):
        return f"{match[1]} parameters"
    if "early stop since" in line:
        return "stopped early: the dev score has not improved for a while"
    for kind, entry in read_entries([line]):
        if kind == "train_inner":
            shown = [f"loss {entry['loss']:.2f}", *_of_criterion(entry)]
            shown.append(f"{entry.get('wps', 0):,.0f} target tokens/s")
            return f"update {entry['num_updates']:,.0f}: {', '.join(shown)}"
        scores = {name.removeprefix(f"{kind}_"): value for name, value in entry.items()}
        shown = [f"loss {scores['loss']:.2f}", *_of_criterion(scores)]
        for name in ("bleu", "bleu_greedy", "chrf", "general_bleu_greedy"):
            if name in scores:
                label = name.replace("bleu", "BLEU").replace("_", " ").replace("chrf", "chrF")
                shown.append(f"{label} {scores[name]:.1f}")
        if "best_bleu" in scores:
            shown.append(f"best BLEU {scores['best_bleu']:.1f}")
        domain = kind.removeprefix("valid").replace("_", " ")
        return f"update {scores['num_updates']:,.0f}, dev{domain}: {', '.join(shown)}"
    return None


def _of_criterion(entry):
    """What our criterions log besides the loss, in words."""
    texts = {
        "teacher_kl": "teacher KL {:.2f} bits",
        "teacher_agreement": "agreement {:.0f} %",
        "anchor_penalty": "anchor penalty {:.3f}",
        "risk": "risk {:.1f}",
    }
    return [text.format(entry[name]) for name, text in texts.items() if name in entry]


def _number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
