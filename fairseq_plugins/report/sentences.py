"""The sentences in which a student differs most from its teacher, with the differences marked."""

import difflib
import re
import unicodedata

from data_prep.files import read_bitext, read_lines
from data_prep.words import words_of

SHOWN = 5  # sentences at either end
LONGEST = 500  # characters of a text that are shown

SAME, EXTRA, MISSING = "same", "extra", "missing"

# what changes the direction of the text around it, or cannot be seen
_INVISIBLE = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def choose(source, references, student, teacher, tgt_lang, shown=SHOWN):
    """The sentences where the student loses and wins most against its teacher, by chrF.

    Args:
        source, references, student: files of the same test set.
        teacher: file of the teacher's translations; None: the student's own chrF decides.
        tgt_lang: language code of the translations.
        shown: number of sentences at either end.

    Returns:
        {"worst": [...], "best": [...], "lines", "better", "worse", "signature", "by"}: sentences
        with the largest loss and gain first; a sentence is {"line", "source", "reference",
        "student", "teacher", "student_chrf", "teacher_chrf", "difference"}; texts are
        {"text", "cut": characters left out, "marks": see ``mark``}. ``better`` and ``worse`` count
        the lines of the whole test set.

    Raises:
        ValueError: the files have different numbers of lines.
    """
    from fairseq_plugins.selection.scores import sentence_score, signature

    pairs = [(src, ref) for _, src, ref in read_bitext(source, references)]
    outputs = {"student": list(read_lines(student))}
    if teacher is not None:
        outputs["teacher"] = list(read_lines(teacher))
    for path, lines in zip((student, teacher), outputs.values(), strict=False):
        if len(lines) != len(pairs):
            raise ValueError(f"{path} has {len(lines):,} lines, {references} {len(pairs):,}")
    chrf = {
        name: [
            sentence_score("chrf", line, ref, tgt_lang)
            for line, (_, ref) in zip(lines, pairs, strict=True)
        ]
        for name, lines in outputs.items()
    }
    base = chrf.get("teacher", [0.0] * len(pairs))
    differences = [own - other for own, other in zip(chrf["student"], base, strict=True)]
    order = sorted(range(len(pairs)), key=lambda place: (differences[place], place))
    if teacher is None:  # no gain and no loss, only far from the reference and near to it
        worst, best = order[:shown], order[::-1][:shown]
    else:
        worst = [place for place in order[:shown] if differences[place] < 0]
        best = [place for place in order[::-1][:shown] if differences[place] > 0]

    def sentence(place):
        src, ref = pairs[place]
        found = {
            "line": place + 1,
            "source": shorten(src),
            "reference": shorten(ref),
            "difference": round(differences[place], 1) if teacher is not None else None,
        }
        for name, lines in outputs.items():
            found[f"{name}_chrf"] = round(chrf[name][place], 1)
            text = shorten(lines[place])
            found[name] = {**text, "marks": mark(found["reference"]["text"], text["text"])}
        return found

    return {
        "worst": [sentence(place) for place in worst],
        "best": [sentence(place) for place in best],
        "lines": len(pairs),
        "better": sum(difference > 0 for difference in differences) if teacher else None,
        "worse": sum(difference < 0 for difference in differences) if teacher else None,
        "signature": signature("chrf", tgt_lang),
        "by": "chrF of the student less that of the teacher" if teacher else "chrF of the student",
    }


def mark(reference, output):
    """[(kind, text)]: what an output has in common with a reference, and what not, in order.

    Kind is ``SAME``, ``EXTRA`` (not in the reference) or ``MISSING`` (only there). Words are
    compared; in scripts without spaces, characters. The texts of ``SAME`` and ``EXTRA`` joined are
    the output.
    """
    ours, theirs = _pieces(output), _pieces(reference)
    matcher = difflib.SequenceMatcher(
        None, [word for word, _ in theirs], [word for word, _ in ours], autojunk=False
    )
    marks = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            marks.append((SAME, "".join(text for _, text in ours[k:m])))
            continue
        if j > i:
            marks.append((MISSING, "".join(text for _, text in theirs[i:j])))
        if m > k:
            marks.append((EXTRA, "".join(text for _, text in ours[k:m])))
    return marks


def shorten(text, longest=LONGEST):
    """{"text", "cut"}: a text that people can be shown, and how many characters are left out."""
    kept = text[:longest]
    return {"text": visible(kept), "cut": len(text) - len(kept)}


def visible(text):
    """``text`` with a sign in place of each character that cannot be seen or misleads the eye."""
    return "".join(map(_visible, text))


def _visible(character):
    code = ord(character)
    if character == "\t":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)  # its picture
    if unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co") or _INVISIBLE.match(character):
        return "\ufffd"
    return character


def _pieces(text):
    """[(word, the same with the white space around it)]; the second joined are ``text``."""
    pieces, end = [], 0
    for word in words_of(text):
        start = text.index(word, end)
        pieces.append((word, text[end:start] + word))
        end = start + len(word)
    if pieces and end < len(text):
        word, shown = pieces[-1]
        pieces[-1] = (word, shown + text[end:])
    return pieces
