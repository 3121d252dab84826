"""Which language a text is in (py3langid), and in which scripts a language is written."""

import functools
import unicodedata

import numpy as np
import regex

# one written language under several names, or a small one that takes sentences from the large
INDISTINCT = {"zh": ("yue", "wuu"), "en": ("pcm",)}
NO_LANGUAGE = "zxx"  # what py3langid calls numbers and markup
PLAUSIBLE = 0.1  # probability with which a text may well be in the language

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
_ASCII_BUT_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())

FEW = 8  # texts up to so many are asked about one by one
AT_ONCE = 1 << 19  # bytes of text that are walked through together
ENOUGH = 1000  # characters of a text that are looked at


def base_code(lang):
    """``zh`` of zh, zh-CN, zh_Hant."""
    return lang.replace("_", "-").split("-")[0].lower()


def known_language(lang):
    """Whether py3langid knows the language."""
    return base_code(lang) in identifier().labels


def letters_of(text, scripts=None):
    """Number of letters of a text, of all or of those in some scripts.

    Args:
        scripts: names as in ``SCRIPTS``, a tuple.
    """
    if scripts is None and text.isascii():
        return len(text.encode().translate(None, _ASCII_BUT_LETTERS))
    return sum(map(len, _letters(scripts).findall(text)))


@functools.lru_cache
def _letters(scripts):
    if scripts is None:
        return regex.compile(r"\p{L}+")
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

    Where those of ``codes`` are plausible too, it is not said to be in another: neighbours
    (Russian and Bulgarian) are told apart by a few letters.

    Args:
        codes: from ``accepted_codes``.
        least: bytes of letters that a text must have to be judged (Latin 1 each, Chinese 3).
        confidence: least probability of the other language.
    """
    judged = [index for index, text in enumerate(texts) if _has_letters(text, least)]
    answers = [None] * len(texts)
    if not judged:
        return answers
    labels, probs = identify([texts[index] for index in judged])
    accepted = probs[:, [labels.index(code) for code in sorted(codes)]].sum(axis=1)
    best = probs.argmax(axis=1)
    for row, index in enumerate(judged):
        code, probability = labels[best[row]], probs[row, best[row]]
        if accepted[row] < PLAUSIBLE and probability >= confidence and code != NO_LANGUAGE:
            answers[index] = f"{code}, probability {probability:.2f}"
    return answers


def _has_letters(text, least):
    """Whether the letters of a text take at least so many bytes of UTF-8."""
    return _letter_bytes(text[: 2 * least]) >= least or _letter_bytes(text) >= least


def _letter_bytes(text):
    if text.isascii():
        return letters_of(text)
    return sum(len(run.encode()) for run in _letters(None).findall(text))


def identify(texts):
    """(codes of languages, probability of each for each text: an array (text, code)).

    The probabilities are those of ``identifier().rank``, some times faster: the texts are
    walked through side by side, a byte of each at a time. Only their first ``ENOUGH``
    characters count.
    """
    labels = identifier().labels
    texts = [text[:ENOUGH] for text in texts]
    if len(texts) <= FEW:
        ranks = [dict(identifier().rank(text)) for text in texts]
        return labels, np.array([[rank[label] for label in labels] for rank in ranks])
    encoded = [_encode(text) for text in texts]
    probs = np.empty((len(texts), len(labels)), dtype=np.float32)
    # long with long, so that few are walked through when the others have ended
    order = sorted(range(len(texts)), key=lambda index: -len(encoded[index]))
    start = size = 0
    for end, index in enumerate(order, start=1):
        size += len(encoded[index])
        if size >= AT_ONCE or end == len(order):
            places = order[start:end]
            probs[places] = _probabilities([encoded[place] for place in places])
            start, size = end, 0
    return labels, probs


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


def _probabilities(encoded):
    """Probability of each language, (text, code), of some texts in bytes, the longest first."""
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
    # a language in two scripts is two classes
    labels = model.labels
    for place, code in enumerate(model.nb_classes):
        first = model.nb_classes.index(code)
        if first != place:
            probs[:, first] += probs[:, place]
    return probs[:, [model.nb_classes.index(label) for label in labels]]
