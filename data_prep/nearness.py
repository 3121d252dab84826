"""How near a line of text is to a domain: two measures, greater is nearer.

A measure is fitted once, which leaves files in a folder, and scores batches of lines from these
files, in this process or in others. A score depends on the line alone, never on its neighbours.
"""

import contextlib
import functools
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.files import write_whole
from data_prep.manifest import read_json, write_json
from data_prep.words import words_of

UNITS = {"subwords": 3, "words": 3, "characters": 5}  # and the order of their n-gram model
SUBWORDS = 8000  # at most; fewer where the samples are small
RARE = 2  # a unit that the samples have less often counts as unknown
UNKNOWN = "0"
BITS = math.log2(10)  # in a unit of the decimal logarithm

# of VariKN: how much likelier a model must make the text for each n-gram that it keeps, and how
# often n-grams of order 1, 2, 3 and above must be there for that
MODEL_SIZE_SCALE = 0.001
CUTOFFS = (0, 0, 1)

FEATURES = 2**20  # columns of the TF-IDF vectors, into which n-grams are hashed
NGRAM_CHARACTERS = (2, 4)


class Samples(NamedTuple):
    """What a measure is fitted to: lists of lines, of each a tuple of sides.

    Attributes:
        domain: of the domain.
        general: of the general text, as many as of the domain where there are so many.
        other: as many more of the general text.
    """

    domain: list
    general: list
    other: list

    def side(self, number):
        """The samples of one side."""
        return [[sides[number] for sides in lines] for lines in self]


# -- cross-entropy difference --------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropyDifference:
    """What general text costs more under a model of general text than under one of the domain.

    Moore & Lewis 2010; summed over the sides, as in Axelrod et al. 2011. In bits per unit; case is
    ignored. The models are Kneser-Ney n-grams of VariKN. One that has learnt from a line gives it
    more than its due, and the line would pass for general however near it is to the domain, so
    there are two general models, and each line is scored by one that has not learnt from it.

    Attributes:
        units: "subwords", "words" or "characters".
        order: longest n-gram.
    """

    units: str = "subwords"
    order: int = UNITS["subwords"]

    preload = ("sentencepiece", "varikn")

    def fit(self, folder, samples):
        """Learn the units and three models of each side; files in ``folder``."""
        sides = len(samples.domain[0])
        for side in range(sides):
            texts = samples.side(side)
            place = Path(folder) / str(side)
            place.mkdir()
            if self.units == "subwords":
                learn_subwords(place / "subwords.model", sum(texts, []))
            write_json(place / "names.json", name_units(self._split(place), sum(texts, [])))
            for name, lines in zip(Samples._fields, texts, strict=True):
                train_model(place / name, self._line(place), lines, self.order)
        write_json(Path(folder) / "learnt.json", {"sides": sides, "lines": samples.general})

    def score(self, folder, lines):
        """The scores of a batch of lines."""
        sides, learnt = _learnt(folder)
        scores = [0.0] * len(lines)
        for side in range(sides):
            place = Path(folder) / str(side)
            line = self._line(place)
            domain, general, other = (load_model(place / name) for name in Samples._fields)
            for number, texts in enumerate(lines):
                units = line(texts[side])
                model = other if texts in learnt else general
                scores[number] += cross_entropy(model, units) - cross_entropy(domain, units)
        return scores

    def _split(self, place):
        return {
            "subwords": lambda: _subwords(place / "subwords.model"),
            "words": lambda: lambda text: words_of(text.casefold()),
            "characters": lambda: lambda text: list(text.casefold()),
        }[self.units]()

    def _line(self, place):
        """Function that gives the names of a text's units, as its models know them."""
        split, names = self._split(place), _names(place / "names.json")
        return lambda text: [names.get(str(unit), UNKNOWN) for unit in split(text)]


@functools.lru_cache
def _learnt(folder):
    record = read_json(Path(folder) / "learnt.json")
    return record["sides"], {tuple(line) for line in record["lines"]}


@functools.lru_cache
def _names(path):
    return read_json(path)


def learn_subwords(path, texts):
    """Write a SentencePiece model of at most ``SUBWORDS`` pieces; case and width are ignored.

    It is for measuring only. The vocabulary that models are trained with is learnt by
    ``data_prep.vocabulary``, after the text has been chosen.
    """
    import sentencepiece

    texts = [text for text in texts if text]
    try:
        with open(path, "wb") as model:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts), model_writer=model, vocab_size=SUBWORDS,
                hard_vocab_limit=False, normalization_rule_name="nmt_nfkc_cf",
                max_sentence_length=max(len(text.encode()) for text in texts) + 1,
                num_threads=1, minloglevel=2,
            )  # fmt: skip
    except (RuntimeError, ValueError):
        raise ValueError(
            f"subwords cannot be learnt from {len(texts):,} lines; take --units words or characters"
        ) from None


@functools.lru_cache
def _subwords(path):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes()).encode


def name_units(split, texts):
    """{unit: name} of all units that ``texts`` hold often enough.

    VariKN takes what stands between spaces for a unit, some strings for marks, and those that it
    does not know for free. Names that are numbers keep it from all three.
    """
    counts = Counter(str(unit) for text in texts for unit in split(text))
    known = sorted(unit for unit, count in counts.items() if count >= RARE)
    return {unit: str(number) for number, unit in enumerate(known, start=1)}


def train_model(path, line, texts, order):
    """Write an n-gram model of ``texts`` in VariKN's binary format.

    Args:
        path: of the model; the files beside it are named after it.
        line: function of a text that gives its units.
        texts: list of str.
        order: longest n-gram.
    """
    import varikn

    names = _names(path.with_name("names.json"))
    vocabulary, training = path.with_suffix(".units"), path.with_suffix(".txt")
    with write_whole(vocabulary) as out:
        out.writelines(f"{name}\n" for name in ("<s>", "</s>", UNKNOWN, *names.values()))
    with write_whole(training) as out:
        out.writelines(f"{_sentence(line(text))}\n" for text in texts)
    with _quiet():
        trainer = varikn.VarigramTrainer(False, False)
        trainer.set_datacost_scale(MODEL_SIZE_SCALE)
        trainer.set_max_order(order)
        # no hash size, no rare or frequent words left out, no tuning set; history ends at <s>
        trainer.initialize(str(training), 0, 0, -1, "", "<s>", False, str(vocabulary))
        trainer.set_cutoffs(CUTOFFS)
        trainer.grow(1)
        trainer.write_file(str(path), False)


@functools.lru_cache
def load_model(path):
    """The n-gram model in a file, ready to score."""
    import varikn

    if not path.exists():  # VariKN would end the process
        raise FileNotFoundError(f"{path} is missing")
    with _quiet():
        model = varikn.Perplexity(str(path))
    model.set_init_hist(1)  # a line begins with <s> and knows nothing of the line before
    return model


def cross_entropy(model, units):
    """Bits per unit of a line, its end counted as one."""
    return model.sentence_logprob(_sentence(units)) * BITS / (len(units) + 1)


def _sentence(units):
    return " ".join(["<s>", *units, "</s>"])


@contextlib.contextmanager
def _quiet():
    """Nothing on stderr, to which VariKN tells everything, past Python."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# -- TF-IDF --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tfidf:
    """The cosine between a line and the line of the domain's sample that is most like it.

    Of TF-IDF vectors (scikit-learn) over n-grams of 2 to 4 characters, which suits scripts with
    and without spaces; summed over the sides.
    """

    preload = ("sklearn.feature_extraction.text",)

    def fit(self, folder, samples):
        """Weigh the n-grams and keep the vectors of the domain; files in ``folder``."""
        import numpy as np
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfTransformer

        for side in range(len(samples.domain[0])):
            texts = samples.side(side)
            counts = [_ngrams().transform(lines) for lines in texts]
            transformer = TfidfTransformer(sublinear_tf=True).fit(sparse.vstack(counts))
            domain = transformer.transform(counts[0]).T.tocsr()
            np.save(Path(folder) / f"idf.{side}.npy", transformer.idf_)
            sparse.save_npz(Path(folder) / f"domain.{side}.npz", domain)

    def score(self, folder, lines):
        """The scores of a batch of lines."""
        total = 0
        for side in range(len(lines[0])):
            transformer, domain = _fitted(folder, side)
            vectors = transformer.transform(_ngrams().transform([texts[side] for texts in lines]))
            total += (vectors @ domain).max(axis=1).toarray().ravel()
        return total.tolist()


def _ngrams():
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char_wb", ngram_range=NGRAM_CHARACTERS, n_features=FEATURES,
        alternate_sign=False, norm=None,
    )  # fmt: skip


@functools.lru_cache
def _fitted(folder, side):
    """(TF-IDF weights, the domain's vectors as columns) of a side."""
    import numpy as np
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer

    transformer = TfidfTransformer(sublinear_tf=True)
    transformer.idf_ = np.load(Path(folder) / f"idf.{side}.npy")
    return transformer, sparse.load_npz(Path(folder) / f"domain.{side}.npz")


METHODS = {"cross-entropy-difference": CrossEntropyDifference, "tfidf": Tfidf}
