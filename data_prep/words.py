"""Words of a line of any script, without a tokeniser."""

import regex

LONGEST_LOOP = 8  # words that are repeated together

# scripts without spaces: each character is a word
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}"
_WORDS = regex.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")


def words_of(text):
    """Words between spaces; each character of a script without spaces is a word."""
    return _WORDS.findall(text)


def count_words(text):
    """Number of ``words_of(text)``."""
    return len(text.split()) if text.isascii() else len(words_of(text))


def most_repeated(text):
    """(times, words) of the words that most often follow themselves at once in ``text``.

    Loops of 1 to ``LONGEST_LOOP`` words are looked for; (1, ...) where nothing is repeated.
    """
    words = words_of(text)
    best = (1, words[:1])
    for size in range(1, min(LONGEST_LOOP, len(words) // 2) + 1):
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            times = run // size + 1
            if times > best[0]:
                best = (times, words[place - size + 1 : place + 1])
    return best
