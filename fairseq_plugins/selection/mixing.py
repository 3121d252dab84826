"""How often each pair is written, and the tag before its source."""

import math
import random

SETS = ("distilled", "references")  # what --mix weighs
ORIGINS = ("distilled", "reference")  # what a pair's target is, and what --tag tells


class Copies:
    """How often to write each pair of a set, so that all together are weight × set, rounded.

    Every pair is written as often as the whole part of the weight says, and a sample
    without replacement once more.

    Args:
        weight: 0 or more.
        population: pairs in the set; a whole weight does not need to know.
        seed: of the sample.
    """

    def __init__(self, weight, population, seed):
        self._whole = int(weight)
        self._needed = round((weight - self._whole) * population)
        self._left = population
        self._chance = random.Random(seed)

    def next(self):
        """Copies of the next pair."""
        # each is taken with the chance of those still needed among those still to come
        once_more = self._needed > 0 and self._chance.random() * self._left < self._needed
        self._left -= 1
        self._needed -= once_more
        return self._whole + once_more


def parse_mix(words):
    """{set: weight} from words like ``references=0.5``; distilled is 1, references 0 by default.

    Raises:
        ValueError: names the word.
    """
    weights = {"distilled": 1.0, "references": 0.0}
    given = set()
    for word in words:
        name, _, value = word.partition("=")
        if name not in SETS:
            raise ValueError(f"--mix weighs {' or '.join(SETS)}, as in references=0.5, not {word}")
        if name in given:
            raise ValueError(f"--mix {name} is given twice")
        given.add(name)
        try:
            weights[name] = float(value)
        except ValueError:
            raise ValueError(f"--mix {word}: {value!r} is not a number") from None
    return check_mix(weights)


def check_mix(weights):
    """The weights, known to be usable."""
    for name, weight in weights.items():
        if name not in SETS:
            raise ValueError(f"--mix weighs {' or '.join(SETS)}, not {name}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"--mix {name}: a weight is 0 or more, not {weight}")
    if not any(weights.values()):
        raise ValueError("--mix leaves nothing: every weight is 0")
    return weights


def parse_tags(words):
    """{origin: tag} from words like ``reference`` and ``reference=<ref>``; all origins by default.

    Raises:
        ValueError: names the word.
    """
    tags = {}
    for word in words or ORIGINS:
        origin, equals, tag = word.partition("=")
        if origin in tags:
            raise ValueError(f"--tag {origin} is given twice")
        tags[origin] = tag if equals else f"<{origin}>"
    return check_tags(tags)


def check_tags(tags):
    """The tags, known to be usable."""
    for origin, tag in tags.items():
        if origin not in ORIGINS:
            raise ValueError(
                f"--tag marks {' or '.join(ORIGINS)}, as in reference or reference=<ref>, "
                f"not {origin}"
            )
        if not tag or len(tag.split()) != 1 or tag != tag.strip():
            raise ValueError(f"--tag {origin}: a tag is one word, not {tag!r}")
    if len(set(tags.values())) < len(tags):
        raise ValueError(f"--tag: both origins have the tag {next(iter(tags.values()))}")
    return tags
