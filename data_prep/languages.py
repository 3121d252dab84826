"""Which language a text is in (py3langid)."""

import functools

# one written language under several names, or a small one that takes sentences from the large
INDISTINCT = {"zh": ("yue", "wuu"), "en": ("pcm",)}


@functools.lru_cache
def identifier():
    """py3langid's identifier of languages; it answers with probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
