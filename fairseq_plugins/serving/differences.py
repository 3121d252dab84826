"""Where two translations of a sentence differ, word by word."""

import difflib
import re

# scripts without spaces are compared character by character
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|(?:(?![\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])\w)+"
    r"|\s+|[^\w\s]"
)


def differences(text, other):
    """How ``text`` differs from ``other``: a list of parts, dictionaries.

    ``{"text": t}`` is in both; ``{"text": t, "differs": True}`` is not in ``other`` at this place;
    ``{"text": "", "missing": m}``: here ``other`` goes on with ``m``. The texts of the parts
    joined are ``text``. Words that differ one after the other are one part.
    """
    words, others = _WORD.findall(text), _WORD.findall(other)
    parts = []
    matcher = difflib.SequenceMatcher(None, words, others, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        part = "".join(words[start:end])
        if kind == "equal":
            parts.append({"text": part})
        elif part.strip():
            parts.append({"text": part, "differs": True})
        else:
            missing = "".join(others[other_start:other_end]).strip()
            parts.append({"text": part, "missing": missing} if missing else {"text": part})
    return _joined(parts)


def _joined(parts):
    """The same with two different parts and the space between them as one."""
    joined = []
    for part in parts:
        between = joined[-1:] == [{"text": " "}] and len(joined) > 1
        if between and "differs" in part and "differs" in joined[-2]:
            joined.pop()
            joined[-1] = {"text": f"{joined[-1]['text']} {part['text']}", "differs": True}
        else:
            joined.append(part)
    return joined
