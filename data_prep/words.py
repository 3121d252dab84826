"""Words of a line of any script, without a tokeniser."""

import operator
from collections import Counter

import regex

LONGEST_LOOP = 8  # words that are repeated together

# scripts without spaces: each character is a word
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}"
_WITHOUT_SPACES = regex.compile(rf"[{_SPACELESS}]")
_WORDS = regex.compile(rf"[{_SPACELESS}]|[^\s\x1c-\x1f{_SPACELESS}]+")
_LETTER = regex.compile(r"\p{L}")


def words_of(text):
    """Words between spaces; each character of a script without spaces is a word."""
    if text.isascii() or not _WITHOUT_SPACES.search(text):
        return text.split()
    return _WORDS.findall(text)


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
    if len(words) - len(set(words)) < most:
        return None  # so many would have stood before
    times, words = most_repeated(text)
    if times <= most or times <= most_repeated(other)[0]:
        return None
    return f"{times} × {' '.join(words)!r}"


def copied_share(source, target, least):
    """Share of the words of ``target`` that stand in ``source``, ignoring case, from 0 to 1.

    Words without a letter do not count. None where ``target`` has fewer than ``least``.
    """
    source, target = words_of(source.casefold()), words_of(target.casefold())
    if len(target) < least:
        return None
    judged = [word for word in target if word.isalpha() or _LETTER.search(word)]
    if len(judged) < least:
        return None
    common = set(source).intersection(judged)
    if not common:
        return 0.0
    return (Counter(judged) & Counter(source)).total() / len(judged)
