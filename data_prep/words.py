"""Words of a line of any script, without a tokeniser."""

import operator
import re
from collections import Counter

LONGEST_LOOP = 8  # words that are repeated together
QUICKLY_SEARCHED = 1000  # characters

# scripts without spaces: each character is a word
_SPACELESS = (
    "\u0e01-\u0e3a\u0e40-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d"  # kana
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff"  # Han
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_MAY_BE_SPACELESS = re.compile("[\u0e00-\U0010ffff]")
_WORDS = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")
_LETTER = re.compile(r"[^\W\d_]")


def words_of(text):
    """Words between spaces; each character of a script without spaces is a word."""
    return _WORDS.findall(text) if _MAY_BE_SPACELESS.search(text) else text.split()


def longest_word(text):
    """Most characters of a word between spaces that no script without spaces interrupts."""
    return max(map(len, words_of(text)), default=0)


def most_repeated(text):
    """(times, words) of the words that most often follow themselves at once in ``text``.

    Loops of 1 to ``LONGEST_LOOP`` words are looked for; (1, ...) where nothing is repeated.
    """
    words = words_of(text)
    best = (1, words[:1])
    for size in range(1, min(LONGEST_LOOP, len(words) // 2) + 1):
        # each time that they follow themselves, so many words equal those before
        if sum(map(operator.eq, words, words[size:])) < best[0] * size:
            continue
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            times = run // size + 1
            if times > best[0]:
                best = (times, words[place - size + 1 : place + 1])
    return best


def repeated_more(text, most, other):
    """"N × 'WORDS'" where words follow themselves more than ``most`` times, else None.

    Args:
        most: how often they may, the first time counted.
        other: the other side of the pair, which may excuse it by repeating as often.
    """
    words = words_of(text)
    # the quick answer for nearly all: no word stands close together as often as that
    if len(words) - len(set(words)) < most or not _crowded(words, most):
        return None
    times, words = most_repeated(text)
    if times <= most or times <= most_repeated(other)[0]:
        return None
    return f"{times} × {' '.join(words)!r}"


def _crowded(words, most):
    """Whether some word stands ``most`` + 1 times where the longest loop would have it."""
    places = {}
    for place, word in enumerate(words):
        before = places.setdefault(word, [])
        if len(before) >= most and place - before[-most] <= LONGEST_LOOP * most:
            return True
        before.append(place)
    return False


def copied_share(source, target, most, least):
    """Share of the words of ``target`` that stand in ``source``, if more than ``most``, else None.

    Case is ignored, and words without a letter do not count.

    Args:
        least: None also where ``target`` has fewer words.
    """
    source = source.casefold()
    words = words_of(target.casefold())
    judged = [word for word in words if word.isalpha() or _LETTER.search(word)]
    if len(judged) < least:
        return None
    # the quick answer for nearly all: too many stand nowhere in the source, not even in a word
    known = source if len(source) < QUICKLY_SEARCHED else set(words_of(source))
    spare = len(judged) * (1 - most)
    for word in judged:
        if word not in known:
            spare -= 1
            if spare < 0:
                return None
    share = (Counter(judged) & Counter(words_of(source))).total() / len(judged)
    return share if share > most else None


def count_words(text):
    """Number of ``words_of(text)``."""
    return len(words_of(text))
