"""Which language a text is in (py3langid), and in which scripts a language is written."""

import functools
import unicodedata

import numpy as np
import regex

# one written language under several names, or a small one that takes sentences from the large
INDISTINCT = {"zh": ("yue", "wuu"), "en": ("pcm",)}
NO_LANGUAGE = "zxx"  # what py3langid calls numbers and markup

_LATIN = """
    af an az bcl br bs ca crh cs cy da de en eo es et eu ext fi fo fr fuv fy ga gcf gcr gd gl gug
    guw ha hr ht hu id ig is it jv kab kik la lb lg lij ln lt ltg lv mg ms mt nl nn no nso oc om
    pcm pl pt qu ro rw se sk sl sn so sq st sv sw tk tl tr uz vec vi vo wa xh yo zu
""".split()
_CYRILLIC = "ba be bg ky mk ru tg tt uk".split()
_ARABIC = "ar ary arz fa ps sdh ug ur".split()
_DEVANAGARI = "gom hi mr ne sa".split()
# scripts that a language is written in, as Unicode names them; not there: unknown or undecided
SCRIPTS = {
    **dict.fromkeys(_LATIN, ("Latin",)),
    **dict.fromkeys(_CYRILLIC, ("Cyrillic",)),
    **dict.fromkeys(_ARABIC, ("Arabic",)),
    **dict.fromkeys(_DEVANAGARI, ("Devanagari",)),
    **dict.fromkeys(["zh", "yue", "wuu"], ("Han",)),
    **dict.fromkeys(["he", "hbo", "yi"], ("Hebrew",)),
    **dict.fromkeys(["el", "grc"], ("Greek",)),
    **dict.fromkeys(["as", "bn"], ("Bengali",)),
    "ja": ("Han", "Hiragana", "Katakana"), "ko": ("Hangul", "Han"),
    "kk": ("Cyrillic", "Latin"), "sr": ("Cyrillic", "Latin"), "mn": ("Cyrillic", "Mongolian"),
    "am": ("Ethiopic",), "dz": ("Tibetan",), "gu": ("Gujarati",), "hy": ("Armenian",),
    "ka": ("Georgian",), "km": ("Khmer",), "kn": ("Kannada",), "lo": ("Lao",),
    "ml": ("Malayalam",), "my": ("Myanmar",), "or": ("Oriya",), "pa": ("Gurmukhi",),
    "si": ("Sinhala",), "ta": ("Tamil",), "te": ("Telugu",), "th": ("Thai",),
}  # fmt: skip
_LETTERS = regex.compile(r"\p{L}+")

FEW = 8  # texts up to so many are asked about one by one
AT_ONCE = 1 << 21  # bytes of text that are walked through together


def base_code(lang):
    """``zh`` of zh, zh-CN, zh_Hant."""
    return lang.replace("_", "-").split("-")[0].lower()


def known_language(lang):
    """Whether py3langid knows the language."""
    return base_code(lang) in identifier().labels


def letters_in(text, scripts):
    """(letters in one of ``scripts``, letters) of a text.

    Args:
        scripts: names as in ``SCRIPTS``.
    """
    letters = sum(map(len, _LETTERS.findall(text)))
    if text.isascii():
        return letters if "Latin" in scripts else 0, letters
    return sum(map(len, _letters_of(scripts).findall(text))), letters


@functools.lru_cache
def _letters_of(scripts):
    names = "".join(rf"\p{{{script}}}" for script in scripts)
    return regex.compile(rf"[\p{{L}}&&[{names}]]+", regex.V1)


@functools.lru_cache
def identifier():
    """py3langid's identifier of languages; it answers with probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@functools.lru_cache
def accepted_codes(*langs):
    """The codes that a text in one of these languages may be found to have.

    Raises:
        ValueError: py3langid does not know one of them; names those it knows.
    """
    codes = [base_code(lang) for lang in langs]
    known = identifier().labels
    for lang, code in zip(langs, codes, strict=True):
        if code not in known:
            raise ValueError(f"py3langid does not know {lang!r}; it knows {', '.join(known)}")
    return frozenset(codes).union(*(INDISTINCT.get(code, ()) for code in codes))


def other_languages(texts, codes, least, confidence):
    """For each text "CODE, probability P" where it is in no language of ``codes``, else None.

    Args:
        codes: from ``accepted_codes``.
        least: bytes of letters that a text must have to be judged (Latin 1 each, Chinese 3).
        confidence: least probability of the other language.
    """
    judged = [index for index, text in enumerate(texts) if _has_letters(text, least)]
    answers = [None] * len(texts)
    found = identify([texts[index] for index in judged])
    for index, (code, probability) in zip(judged, found, strict=True):
        if code != NO_LANGUAGE and code not in codes and probability >= confidence:
            answers[index] = f"{code}, probability {probability:.2f}"
    return answers


def _has_letters(text, least):
    """Whether the letters of a text take at least so many bytes of UTF-8."""
    return _letter_bytes(text[: 2 * least]) >= least or _letter_bytes(text) >= least


def _letter_bytes(text):
    if text.isascii():
        return sum(map(str.isalpha, text))
    return sum(len(letter.encode()) for letter in text if letter.isalpha())


def identify(texts):
    """(code, probability) of the most likely language of each text.

    The answers are those of ``identifier().classify``, some times faster: the texts are walked
    through side by side, a byte of each at a time.
    """
    if len(texts) <= FEW:
        return [identifier().classify(text) for text in texts]
    encoded = [_encode(text) for text in texts]
    answers = [None] * len(texts)
    # long with long, so that none waits for another to end
    order = sorted(range(len(texts)), key=lambda index: -len(encoded[index]))
    start = size = 0
    for end, index in enumerate(order, start=1):
        size += len(encoded[index])
        if size >= AT_ONCE or end == len(order):
            places = order[start:end]
            found = _identify([encoded[place] for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
            start, size = end, 0
    return answers


def _encode(text):
    return unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode()


@functools.lru_cache
def _tables():
    """Of py3langid's automaton and classifier, as arrays."""
    model = identifier()
    return (
        np.asarray(model.tk_nextmove),  # (row and byte,): next state
        np.asarray(model.tk_row, dtype=np.int64) << 8,  # (state,): its row
        np.asarray(model.tk_output, dtype=np.int32),  # (state,): feature, or below 0
        np.asarray(model.nb_ptc, dtype=np.float32),  # (feature, class): log-probability
    )


def _identify(encoded):
    """(code, probability) of each of some texts in bytes, the longest first."""
    from scipy.sparse import csr_array

    next_state, rows, features, log_probs = _tables()
    lengths = np.array([len(text) for text in encoded])
    letters = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    starts = np.cumsum(lengths) - lengths
    unfinished = np.searchsorted(-lengths, -np.arange(lengths[0]))  # texts that have byte N
    states = np.zeros(len(encoded), dtype=np.int64)
    visited = np.empty(len(letters), dtype=np.int64)
    for step, count in enumerate(unfinished.tolist()):
        places = starts[:count] + step
        states[:count] = next_state[rows[states[:count]] + letters[places]]
        visited[places] = states[:count]

    found = features[visited]
    ends = np.concatenate([[0], np.cumsum(found >= 0)])[np.concatenate([[0], starts + lengths])]
    found = found[found >= 0]
    counts = csr_array(
        (np.ones(len(found), dtype=np.float32), found, ends),
        shape=(len(encoded), len(log_probs)),
    )  # (text, feature)
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)

    model = identifier()
    scores = counts @ log_probs  # (text, class)
    # a text without features has equal scores: no class is preferred
    scores += np.where(np.diff(counts.indptr)[:, None] > 0, model.nb_pc, 0)
    scores /= np.sqrt(np.maximum(lengths, 1))[:, None]
    probs = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    codes = model.nb_classes
    for place, code in enumerate(codes):  # a language in two scripts is one
        first = codes.index(code)
        if first != place:
            probs[:, first] += probs[:, place]
            probs[:, place] = 0
    best = probs.argmax(axis=1)
    return [(codes[place], float(row[place])) for place, row in zip(best, probs, strict=True)]
