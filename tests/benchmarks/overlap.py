"""Near overlap with held-out lines: our exact search against MinHash and other libraries.

The training lines of one language are looked up in the dev and test lines of the same folders, by
every way in turn. What MinHash finds is verified by the Jaccard similarity of the words, so that
no way finds too much; recall is the share found of what a product of sparse matrices finds, which
compares all with all. Splitting into words is timed apart, since it is the same for all.

Example:
  python tests/benchmarks/overlap.py --lang de --lines 20000 corpora/general corpora/medical
"""

import argparse
import functools
import importlib.util
import pickle
import time

import numpy as np

from data_prep.files import read_lines
from data_prep.near_duplicates import NearIndex, plain_words
from data_prep.overlap import HELD_OUT, NEAR_THRESHOLD, NEAR_WORDS, find_split

PERMUTATIONS = 128
AT_ONCE = 500  # lines of a sparse product


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR")
    parser.add_argument("--lang", required=True)
    parser.add_argument("--lines", type=int, default=20000, help="training lines, evenly spread")
    parser.add_argument("--threshold", type=float, default=NEAR_THRESHOLD)
    parser.add_argument("--words", type=int, default=NEAR_WORDS)
    args = parser.parse_args()

    texts = {split: [line for path in paths_of(args, split) for line in read_lines(path)]
             for split in ("train", *HELD_OUT)}  # fmt: skip
    train = [texts["train"][number] for number in
             np.linspace(0, len(texts["train"]) - 1, args.lines).astype(int)]  # fmt: skip
    held_out = [set(plain_words(line)) for split in HELD_OUT for line in texts[split]]
    held_out = [words for words in held_out if len(words) >= args.words]
    started = time.process_time()
    lines = list(map(plain_words, train))
    seconds = time.process_time() - started
    asked = [set(words) for words in lines]
    print(
        f"{len(train):,} training lines of {args.lang}, {len(held_out):,} held out; near from "
        f"{args.threshold}, {args.words} words; a line into words: "
        f"{seconds / len(train) * 1e6:.1f} µs; one core, processor time"
    )
    ways = {
        "ours": ours,
        "datasketch MinHashLSH": datasketch_lsh,
        "rensa RMinHashLSH, 16 bands": functools.partial(rensa_lsh, bands=16),
        "rensa RMinHashLSH, 32 bands": functools.partial(rensa_lsh, bands=32),
        "SetSimilaritySearch": set_similarity_search,
        "sparse product": sparse_product,
    }
    results = {}
    for name, way in ways.items():
        if importlib.util.find_spec(name.split()[0]) is None and way not in (ours, sparse_product):
            print(f"{name:<28} is not installed")
            continue
        started = time.process_time()
        search, size = way(held_out, args)
        built = time.process_time() - started
        started = time.process_time()
        found = search(asked)
        seconds = time.process_time() - started
        results[name] = (built, len(asked) / seconds, size, found)
    truth = results["sparse product"][-1]
    for name, (built, speed, size, found) in results.items():
        assert found <= truth, f"{name} finds too much"
        print(
            f"{name:<28} built in {built:6.2f} s ({size / 1e6:5.1f} MB)   {speed:9,.0f} lines/s   "
            f"ours is {results['ours'][1] / speed:7.1f} × as fast   recall {len(found):,} of "
            f"{len(truth):,} = {len(found) / max(1, len(truth)):.3f}"
        )


def paths_of(args, split):
    for folder in args.folders:
        if paths := find_split(folder, split, [args.lang]):
            yield from paths


def is_near(one, other, threshold):
    return len(one & other) / len(one | other) >= threshold - 1e-9


def ours(held_out, args):
    index = NearIndex(held_out, args.threshold, args.words)
    return lambda asked: {
        number for number, words in enumerate(asked) if index.nearest(words)
    }, len(pickle.dumps(index))


def verified(asked, candidates, held_out, args):
    return {
        number
        for number, words in enumerate(asked)
        if len(words) >= args.words
        and any(is_near(words, held_out[place], args.threshold) for place in candidates(words))
    }


def datasketch_lsh(held_out, args):
    from datasketch import MinHash, MinHashLSH

    def minhash(words):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([word.encode() for word in words])
        return sketch

    lsh = MinHashLSH(threshold=args.threshold, num_perm=PERMUTATIONS)
    for place, words in enumerate(held_out):
        lsh.insert(place, minhash(words))
    return lambda asked: verified(
        asked, lambda words: lsh.query(minhash(words)), held_out, args
    ), len(pickle.dumps(lsh))


def rensa_lsh(held_out, args, bands):
    from rensa import RMinHash, RMinHashLSH

    def minhash(words):
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update(list(words))
        return sketch

    lsh = RMinHashLSH(threshold=args.threshold, num_perm=PERMUTATIONS, num_bands=bands)
    for place, words in enumerate(held_out):
        lsh.insert(place, minhash(words))
    return lambda asked: verified(
        asked, lambda words: lsh.query(minhash(words)), held_out, args
    ), len(pickle.dumps(lsh))


def set_similarity_search(held_out, args):
    from SetSimilaritySearch import SearchIndex

    index = SearchIndex(held_out, "jaccard", args.threshold - 1e-9)
    return lambda asked: {
        number for number, words in enumerate(asked)
        if len(words) >= args.words and index.query(words)
    }, len(pickle.dumps(index))  # fmt: skip


def sparse_product(held_out, args):
    from scipy.sparse import csr_array

    columns = {word: column for column, word in enumerate(sorted(set().union(*held_out)))}

    def matrix(sets):
        found = [[columns[word] for word in words if word in columns] for words in sets]
        ends = np.cumsum([0, *map(len, found)])
        values = np.ones(ends[-1], dtype=np.int32)
        return csr_array((values, np.concatenate(found).astype(int), ends),
                         shape=(len(sets), len(columns)))  # fmt: skip

    words_of_held_out = matrix(held_out).T.tocsr()
    sizes = np.array([len(words) for words in held_out])

    def search(asked):
        near = set()
        for first in range(0, len(asked), AT_ONCE):
            batch = asked[first : first + AT_ONCE]
            shared = (matrix(batch) @ words_of_held_out).tocoo()
            own = np.array([len(words) for words in batch])[shared.coords[0]]
            similar = shared.data / (own + sizes[shared.coords[1]] - shared.data)
            found = (similar >= args.threshold - 1e-9) & (own >= args.words)
            near.update((shared.coords[0][found] + first).tolist())
        return near

    return search, words_of_held_out.data.nbytes + words_of_held_out.indices.nbytes


if __name__ == "__main__":
    main()
