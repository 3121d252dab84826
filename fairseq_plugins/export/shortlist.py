"""Shortlists: for each source piece the target pieces that may translate it.

The output layer of a small student costs much of its time, most of it for pieces that cannot
come. CTranslate2 reads ``vmap.txt`` (its vocabulary map) and computes only the pieces that the
source pieces of a batch allow, and some that are always allowed (Jean et al. 2015,
https://aclanthology.org/P15-1001, section 3.2; as Marian's lexical shortlists).

Which pieces translate which is learnt from the text that the student learnt from, by IBM Model 1
(Brown et al. 1993, https://aclanthology.org/J93-2003): pieces of a target line are drawn from
those of its source line, or from none, whatever their order.
"""

import numpy as np
from tqdm import tqdm

from data_prep.command import bar_settings
from data_prep.files import find_text, read_bitext, read_lines, write_whole

SHORTLIST = "vmap.txt"
# Of the target pieces of held-out lines (the quickstart's distilled general text) these allow
# 99.5 %; 50 and 100 allow 99.0 %, 200 and 500 99.8 % at twice as many pieces for a sentence.
LIKELY = 100  # target pieces for each source piece
FREQUENT = 200  # target pieces that are always allowed
LINES = 100_000  # of 25 pieces they take half a GB of memory
ITERATIONS = 5
BATCH_LINES = 2000
LONGEST = 100  # pieces; the cost of a pair grows with the square


def read_pieces(folders, vocabulary, lines=LINES):
    """Pairs of lines as numbers of pieces, evenly spread over the text.

    Args:
        folders: text folders with ``train.SRC`` and ``train.TGT``.
        vocabulary: of the model.
        lines: at most so many.

    Returns:
        (source pieces, target pieces, pairs); pieces are those of the dictionaries, pairs is a
        list of two integer arrays each. Pairs with an empty side are left out.

    Raises:
        FileNotFoundError, ValueError: a folder has no training text, or none is left.
    """
    paths = [
        [find_text(folder, "train", lang) for lang in vocabulary.langs] for folder in folders
    ]
    total = sum(1 for pair in paths for _ in read_bitext(*pair))
    step = max(-(-total // lines), 1)
    rows = (row for pair in paths for row in read_bitext(*pair))
    chosen = [(src, tgt) for at, (_, src, tgt) in enumerate(rows) if at % step == 0]
    names, sides = [], []
    for at_side, lang in enumerate(vocabulary.langs):
        texts = [pair[at_side] for pair in chosen]
        known = [line.split(" ")[0] for line in read_lines(vocabulary.dictionary(lang))]
        numbers = {piece: number for number, piece in enumerate(known)}
        subwords = vocabulary.subwords(lang)
        side = []
        for at in tqdm(range(0, len(texts), BATCH_LINES), desc=f"pieces of {lang}",
                       **bar_settings()):  # fmt: skip
            for pieces in subwords.encode_batch(texts[at : at + BATCH_LINES]):
                found = [numbers[piece] for piece in pieces[:LONGEST] if piece in numbers]
                side.append(np.array(found, dtype=np.int64))
        names.append(known)
        sides.append(side)
    pairs = [(src, tgt) for src, tgt in zip(*sides, strict=True) if len(src) and len(tgt)]
    if not pairs:
        raise ValueError(f"{' and '.join(map(str, folders))} hold no pair to learn a shortlist of")
    return *names, pairs


def likely_translations(pairs, src_size, tgt_size, likely=LIKELY, iterations=ITERATIONS):
    """Most probable target pieces of each source piece under IBM Model 1.

    Args:
        pairs: list of (source numbers, target numbers), arrays of int64.
        src_size, tgt_size: numbers of pieces.
        likely: most target pieces for each source piece.
        iterations: of expectation maximisation, from equal probabilities.

    Returns:
        list of arrays, one for each source piece: target numbers, the most probable first.
    """
    nothing = src_size  # the source of what has none
    batches = [
        _links(pairs[at : at + BATCH_LINES], nothing, tgt_size)
        for at in range(0, len(pairs), BATCH_LINES)
    ]
    keys = np.unique(np.concatenate([links for links, _, _ in batches]))
    sources = keys // tgt_size
    # of all links in turn: its place in keys, and the target token that it is for
    batches = [
        (np.searchsorted(keys, links).astype(np.int32)[which], targets)
        for links, which, targets in batches
    ]
    probability = np.ones(len(keys))
    for _ in tqdm(range(iterations), desc="which translates which", **bar_settings()):
        counts = np.zeros(len(keys))
        for places, targets in batches:
            shares = probability[places]
            shares /= np.bincount(targets, shares)[targets]
            counts += np.bincount(places, shares, minlength=len(keys))
        probability = counts / np.bincount(sources, counts)[sources]
    # by source, then by falling probability, then by number: the same on every machine
    order = np.lexsort((keys, -probability, sources))
    ends = np.searchsorted(sources, np.arange(src_size + 1))
    return [
        keys[order[start:end][:likely]] % tgt_size for start, end in zip(ends, ends[1:])
    ]


def _links(pairs, nothing, tgt_size):
    """(different links, which of them each link is, target token that it is for) of some pairs.

    A link is a source piece, or none, with a target piece of the same pair, as one number.
    """
    links, targets, at = [], [], 0
    for src, tgt in pairs:
        sources = np.append(src, nothing)
        links.append((sources[None, :] * tgt_size + tgt[:, None]).ravel())
        targets.append(np.repeat(np.arange(at, at + len(tgt), dtype=np.int32), len(sources)))
        at += len(tgt)
    different, which = np.unique(np.concatenate(links), return_inverse=True)
    return different, which.astype(np.int32), np.concatenate(targets)


def write_shortlist(folder, texts, vocabulary, likely=LIKELY, frequent=FREQUENT, lines=LINES):
    """Write ``vmap.txt`` into an exported folder; return what the manifest says of it.

    Each line is a source piece, a tab, and target pieces; the first one has no source piece and
    names those that are always allowed. A piece may always be translated by itself, as names and
    numbers are.

    Args:
        folder: an exported folder.
        texts, vocabulary, lines: see :func:`read_pieces`.
        likely: target pieces for each source piece.
        frequent: target pieces that are always allowed, the most frequent ones.

    Raises:
        FileNotFoundError, ValueError: see the message.
    """
    for flag, value in (("likely", likely), ("frequent", frequent)):
        if value < 1:
            raise ValueError(f"--shortlist-{flag} is 1 or more, not {value}")
    src_pieces, tgt_pieces, pairs = read_pieces(texts, vocabulary, lines)
    found = likely_translations(pairs, len(src_pieces), len(tgt_pieces), likely)
    counts = np.bincount(np.concatenate([tgt for _, tgt in pairs]), minlength=len(tgt_pieces))
    always = [number for number in np.argsort(-counts, kind="stable")[:frequent] if counts[number]]
    known = set(tgt_pieces)
    with write_whole(folder / SHORTLIST) as out:
        out.write("\t" + " ".join(tgt_pieces[number] for number in always) + "\n")
        for piece, numbers in zip(src_pieces, found, strict=True):
            own = [piece] if piece in known else []
            candidates = dict.fromkeys([*own, *(tgt_pieces[number] for number in numbers)])
            if candidates:
                out.write(f"{piece}\t{' '.join(candidates)}\n")
    return {"likely": likely, "frequent": frequent, "pairs": len(pairs)}
