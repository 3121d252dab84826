"""What a stage costs: seconds, memory and disk, as far as can be said before it runs.

Everything follows from the words of the stage's command (updates, tokens in a batch, size, beam),
from the text (its own counts where it is prepared, else a sample of the raw files) and from the
``Rates`` of a machine. An estimate is a range. Its upper end is that of a training which
--patience has not ended sooner; what is not known is None and says why.
"""

import gzip
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data_prep.files import PACKED, open_bytes
from data_prep.manifest import read_json
from data_prep.model_sizes import PREFIX, SIZES, parameter_count

MANY = 3000  # lines of a file that are read to know how long its lines are
FILL = 0.83  # target tokens in a batch, as a share of --max-tokens: the rest is padding
PASSES = 30  # over the data, after which --patience will have ended a training (rule of thumb)
TOP_K = 16  # log-probabilities that dad-cache-teacher keeps for a token
DICTIONARY = 60_000  # types in a prepared folder up to which an id takes 2 bytes
# a training's time by what it learns, plain being 1
LOSSES = {"plain": 1.0, "word": 1.1, "selective": 1.1}
ADAPTED = {"anchored": 1.35, "ewc": 1.1}
PROCESS = {"cpu": 0.45e9, "cuda": 0.6e9}  # bytes of Python, torch and fairseq without a model
BYTES_PER_PARAMETER = {"fp32": 16, "fp16": 20, "bf16": 20}
LATIN = 4.4  # characters in a piece of a vocabulary of 30,000
DENSE = {"zh": 1.6, "ja": 1.8, "ko": 1.9, "th": 3.0}


@dataclass(frozen=True)
class Text:
    """Size of a bitext; None where it is not known.

    Attributes:
        pairs: training pairs.
        tokens: target pieces in a pair, end of sentence included.
        characters: in a pair, both sides.
        dev: lines of the dev set.
        known: how: ``counted``, ``sampled``, or why it is not.
    """

    pairs: float | None = None
    tokens: float = 26.0
    characters: float = 190.0
    dev: int = 1000
    known: str = "unknown"


@dataclass(frozen=True)
class Estimate:
    """Cost of a stage.

    Attributes:
        low, high: seconds; None where they are not known.
        memory: bytes at the peak; ``on`` says of what: RAM or GPU.
        disk: bytes that stay; ``extra`` those that are needed while it runs.
        parameters: of the model, where there is one.
        unknown: why something is not known.
        limit: seconds of all --updates, where --patience will end the training sooner.
    """

    low: float | None = None
    high: float | None = None
    memory: float = 0.0
    on: str = "RAM"
    disk: float | None = 0.0
    extra: float = 0.0
    unknown: str = ""
    limit: float | None = None


class Estimator:
    """Costs of the stages of a plan.

    Args:
        stages: ``PlannedStage`` in the order of the chain.
        langs: source and target language.
        rates: ``Rates``; None: no time is known.
        on_gpu: whether models run on a GPU that this machine has.
    """

    def __init__(self, stages, langs, rates, on_gpu=False):
        self._makers = {stage.out: stage for stage in stages}
        self._langs, self._rates, self._on_gpu = langs, rates, on_gpu
        self._device = "cuda" if on_gpu else "cpu"
        self._texts = {}
        self.vocabulary = self._vocabulary(stages)

    @property
    def models_are_known(self):
        """Whether the rates are those of the device that models run on."""
        return self._rates is not None and self._rates.device == self._device

    def of(self, stage):
        """``Estimate`` of a stage."""
        how = {
            "train": self._train, "distil": self._distil, "cache": self._cache,
            "candidates": self._candidates, "fisher": self._fisher, "export": self._export,
            "score": self._score, "speed": self._speed, "report": self._report,
            "ship": self._ship, "vocabulary": self._learn, "prepare": self._prepare,
            "hand over": self._hand_over,
        }  # fmt: skip
        found = how.get(stage.kind, self._text_step)(stage, flags(stage.command))
        spread = self._rates.spread if self._rates else 1
        return replace(
            found, low=found.low and found.low / spread, high=found.high and found.high * spread,
            limit=found.limit and found.limit * spread,
        )

    # -- text ------------------------------------------------------------------------------

    def text(self, folder):
        """``Text`` of a text folder, a prepared folder or a raw one, there or not yet."""
        folder = str(PurePosixPath(folder))
        if folder not in self._texts:
            self._texts[folder] = Text()  # a plan that goes in circles ends here
            self._texts[folder] = self._find_text(folder)
        return self._texts[folder]

    def _find_text(self, folder):
        path = Path(folder)
        if (path / "manifest.json").exists() and path.name == "prepared":
            return self._counted(path)
        maker = self._makers.get(folder) or self._makers.get(str(path.parent))
        if (path / "ledger.json").exists():
            kept = read_json(path / "ledger.json").get("kept")
            return replace(_sampled(path, self._langs, self.vocabulary), pairs=kept,
                           known="counted") if kept else Text()  # fmt: skip
        if maker is None:
            return _sampled(path, self._langs, self.vocabulary)
        words = flags(maker.command)
        if "data_prep.fetch" in maker.command:
            return Text(known="not fetched yet")
        source = words.get("--text") or words.get("--train") or words.get("--in")
        found = self.text(source) if source and source != folder else Text()
        if maker.out.endswith("/sources"):
            found = self._with_monolingual(found, words.get("--in"))
        if found.pairs and "--lines" in words:
            found = replace(found, pairs=min(found.pairs, int(words["--lines"])))
        return found

    def _counted(self, path):
        counts = read_json(path / "manifest.json")["counts"]
        train, target = counts["train"], self._langs[1]
        pairs = train["pairs"]
        pieces = train.get(target, {}).get("pieces", 0)
        return Text(
            pairs, pieces / pairs + 1 if pairs else 0, 8 * pieces / max(1, pairs),
            counts.get("dev", {}).get("lines", 0), "counted",
        )  # fmt: skip

    def _with_monolingual(self, found, raw):
        files = [
            path for path in Path(raw or ".").glob("monolingual*")
            if f".{self._langs[0]}" in path.name
        ]  # fmt: skip
        more = sum(_lines(path)[0] for path in files)
        return replace(found, pairs=(found.pairs or 0) + more) if more else found

    def _vocabulary(self, stages):
        for stage in stages:
            if stage.kind == "vocabulary":
                return int(flags(stage.command).get("--size", 30000))
        return 30000

    # -- models ----------------------------------------------------------------------------

    def size_of(self, model):
        """Name of the size of a model folder, from the training that makes it; None: unknown."""
        maker = self._makers.get(str(PurePosixPath(model)).removeprefix("exported/"))
        size = maker and flags(maker.command).get("--size")
        return size if size in SIZES else None

    def parameters(self, size):
        """Parameters of a size with the vocabulary of this plan."""
        return parameter_count(PREFIX + size, self.vocabulary)["parameters"]

    def _seconds(self, per_token, tokens, starts=1):
        """Seconds of work on models; None where speed or text is not known."""
        if not self.models_are_known or per_token is None or tokens is None:
            return None
        return per_token * tokens + starts * self._rates.start

    def _why(self, text=None):
        """Why a time is not known."""
        if text is not None and text.pairs is None:
            return f"the corpus is {text.known}"
        if not self.models_are_known:
            return "nobody has measured this GPU" if self._on_gpu else "nothing is measured"
        return ""

    def _train(self, stage, words):
        size = words.get("--size")
        if size not in SIZES:
            return Estimate(unknown=f"the size {size} is not ours", disk=None)
        text = self.text(words["--data"])
        updates = int(words.get("--max-update") or words.get("--updates", 100000))
        precision = words.get("--precision", "fp32")
        max_tokens = int(words.get("--max-tokens", 4096))
        tokens = max_tokens * int(words.get("--update-frequency", 1)) * FILL
        parameters = self.parameters(size)
        saved = 12 * parameters  # weights and Adam's two moments
        cost = Estimate(
            memory=training_memory(size, self.vocabulary, max_tokens, precision, self._device),
            on="GPU" if self._on_gpu else "RAM", disk=4 * parameters, extra=2 * saved,
            unknown=self._why(text),
        )  # fmt: skip
        speed = self.models_are_known and self._rates.train(size, self.vocabulary, precision)
        if not speed:
            return replace(cost, unknown=self._why() or f"{precision} is not measured")
        per_update = speed * tokens * _loss_factor(words)
        limit = per_update * updates
        if text.pairs is None:
            return replace(cost, limit=limit + 2 * self._rates.start)
        in_pass = max(1.0, text.pairs * text.tokens / tokens)
        between = max(1.0, in_pass * float(words.get("--epoch-fraction", 1)))
        beam = int(words.get("--valid-beam", 5))
        decoded = text.dev * text.tokens
        validation = 1.0 + sum(
            (self._rates.decode(size, self.vocabulary, width, "fairseq", "float32") or speed)
            * decoded for width in ({1, beam} if beam else ())  # greedily too; 0: not at all
        )  # fmt: skip
        patience = int(words.get("--patience", 10))
        most = min(updates, PASSES * in_pass) if patience > 0 else updates
        least = min(updates, (patience + 1) * between) if patience > 0 else updates

        def seconds(number):
            return number * (per_update + validation / between) + 2 * self._rates.start

        left = 1 - _share_done(stage, updates)
        return replace(
            cost, low=seconds(least * left), high=seconds(most * left),
            limit=seconds(updates * left) if most < updates else None,
        )  # fmt: skip

    def _decoding(self, model, beam, compute_type=None):
        """Seconds for a target token of CTranslate2; None: unknown."""
        size = self.size_of(model)
        if not size or not self.models_are_known:
            return None
        compute_type = compute_type or ("float16" if self._on_gpu else "float32")
        return self._rates.decode(size, self.vocabulary, beam, "ctranslate2", compute_type)

    def _distil(self, stage, words):
        text = self.text(words["--text"])
        beam, extra = int(words.get("--beam", 5)), 1
        targets = words.get("--targets", "best").split("-")
        if targets[0] == "mbr":
            beam, extra = int(targets[1]), int(targets[1])
        elif targets[0] == "best" and len(targets) > 2:
            extra = int(targets[2])
        extra = max(extra, int(words.get("--n-best", 1)))
        speed = self._decoding(words["--teacher"], max(beam, extra), words.get("--compute-type"))
        size = self.size_of(words["--teacher"])
        parameters = self.parameters(size) if size else 0
        if text.pairs is None:
            return Estimate(unknown=self._why(text), disk=None, memory=4 * parameters)
        seconds = self._seconds(speed, text.pairs * text.tokens, starts=4)
        if seconds is not None:
            seconds += self._text_seconds("encode", text.pairs)
        tokens = text.pairs * text.tokens
        disk = text.pairs * text.characters * (1.5 + 0.6 * (extra - 1)) + self._binary(tokens, text)
        return Estimate(
            seconds, seconds, memory=PROCESS[self._device] + 4 * parameters + 4e8,
            on="GPU" if self._on_gpu else "RAM", disk=disk, unknown=self._why(),
        )  # fmt: skip

    def _binary(self, tokens, text):
        return 2 * tokens * (2 if self.vocabulary < DICTIONARY else 4) + 24 * text.pairs

    def _cache(self, stage, words):
        text, size = self.text(words["--data"]), self.size_of(words["--teacher"])
        if text.pairs is None or not size:
            return Estimate(unknown=self._why(text), disk=None)
        tokens = text.pairs * text.tokens
        speed = self.models_are_known and self._rates.train(size, self.vocabulary)
        seconds = self._seconds(speed / 3 if speed else None, tokens, starts=2)  # no backward pass
        return Estimate(seconds, seconds, memory=PROCESS[self._device] + 6 * self.parameters(size),
                        disk=tokens * TOP_K * 8, unknown=self._why())  # fmt: skip

    def _candidates(self, stage, words):
        text = self.text(words["--data"])
        if text.pairs is None or not self._rates:
            return Estimate(unknown=self._why(text), disk=None)
        seconds = self._text_seconds("encode", 5 * text.pairs) + self._rates.start
        return Estimate(seconds, seconds, memory=1e9, disk=text.pairs * text.tokens * 20)

    def _fisher(self, stage, words):
        size = self.size_of(words["--model"])
        speed = size and self.models_are_known and self._rates.train(size, self.vocabulary)
        tokens = int(words.get("--samples", 1000)) * self.text(words["--data"]).tokens
        seconds = self._seconds(10 * speed if speed else None, tokens)  # a sentence at a time
        parameters = self.parameters(size) if size else 0
        return Estimate(seconds, seconds, memory=PROCESS[self._device] + 12 * parameters,
                        disk=4 * parameters, unknown=self._why())  # fmt: skip

    def _export(self, stage, words):
        size = self.size_of(words["--model"])
        parameters = self.parameters(size) if size else 0
        seconds = self._rates and self._rates.start + parameters / 4e7
        width = 4 if words.get("--compute-type", "int8") == "float32" else 1.2
        return Estimate(seconds, seconds, memory=PROCESS["cpu"] + 9 * parameters,
                        disk=width * parameters)  # fmt: skip

    def _score(self, stage, words):
        beam = int(words.get("--beam", 5))
        tests = [self.text(test.partition("=")[2]) for test in _all(stage.command, "--test")]
        speeds = [self._decoding(words["--model"], width, "int8") for width in {1, beam}]
        tokens = sum(text.dev * text.tokens for text in tests)
        if not self.models_are_known or None in speeds:
            return Estimate(unknown=self._why(), disk=tokens * 40)
        # each test set is scored by resampling, and its overlap with training text is looked for
        pairs = sum(text.pairs or 0 for text in tests)
        seconds = sum(speeds) * tokens + self._rates.start * 1.5 + pairs / 2e5
        return Estimate(seconds, seconds, memory=1e9, disk=tokens * 40)

    def _speed(self, stage, words):
        if not self._rates:
            return Estimate(unknown=self._why())
        models = sum(1 for path in stage.inputs if path.startswith("exported/"))
        seconds = float(words.get("--seconds", 60)) + 2 * models + self._rates.start
        return Estimate(seconds, seconds, memory=1e9, disk=1e5)

    def _report(self, stage, words):
        seconds = self._rates and 2 * self._rates.start
        return Estimate(seconds, seconds, memory=6e8, disk=2e7)

    def _hand_over(self, stage, words):
        seconds = self._rates and 2 * self._rates.start
        size = sum(Path(path).stat().st_size for path in stage.inputs if Path(path).is_file())
        return Estimate(seconds, seconds, memory=1e9, disk=size)

    def _ship(self, stage, words):
        size = self.size_of(words["--model"])
        if not size or not self.models_are_known:
            return Estimate(unknown=self._why(), disk=None)
        text, beam = self.text(words["--dev"]), int(words.get("--beam", 5))
        slow = self._rates.decode(size, self.vocabulary, beam, "fairseq", "float32") or 0
        fast = self._decoding(words["--model"], beam, "int8") or 0
        seconds = (slow + fast) * text.dev * text.tokens + 2 * self._rates.start
        return Estimate(seconds, seconds, memory=1e9, disk=5.5 * self.parameters(size))

    # -- text steps ------------------------------------------------------------------------

    def _text_seconds(self, step, pairs):
        return pairs / self._rates.text[step]

    def _learn(self, stage, words):
        text = self.text(words.get("--train", ""))
        return self._step("vocabulary", text, disk=1e6, memory=1e9, most=5e6)

    def _prepare(self, stage, words):
        text = self.text(words["--train"])
        disk = self._binary(text.pairs * text.tokens, text) if text.pairs else None
        return self._step("encode", text, disk, memory=5e8)

    def _text_step(self, stage, words):
        if "data_prep.fetch" in stage.command:
            return Estimate(unknown="its size is known when it is fetched", disk=None)
        folder = words.get("--in") or words.get("--text")
        texts = [self.text(folder)] if folder else [self.text(path) for path in stage.inputs]
        if "--lines" in words:  # what is read of a corpus, too
            texts = [text.pairs and replace(text, pairs=min(text.pairs, int(words["--lines"])))
                     or text for text in texts]  # fmt: skip
        known = [text for text in texts if text.pairs]
        if len(known) < len(texts) or not known:
            return self._step("clean", Text(known=(texts or [Text()])[0].known), None, 3e8)
        both = sum(text.pairs * text.characters for text in known)
        whole = replace(known[0], pairs=sum(text.pairs for text in known))
        if "data_prep.overlap" in stage.command:
            return self._step("overlap", whole, disk=1e5, memory=4e8)
        return self._step("clean", whole, both, memory=4e8)

    def _step(self, step, text, disk, memory, most=None):
        if text.pairs is None:
            return Estimate(unknown=f"the corpus is {text.known}", disk=disk, memory=memory)
        if not self._rates:
            return Estimate(disk=disk, memory=memory, unknown="nothing is measured")
        pairs = min(text.pairs, most) if most else text.pairs
        # encoding calls fairseq-preprocess; other steps start in a moment
        starts = 1.2 if step == "encode" else 0.1
        seconds = self._text_seconds(step, pairs) + starts * self._rates.start
        return Estimate(seconds, seconds, memory=memory, disk=disk)


def flags(words):
    """{flag: its last value} of a command; those after ``--`` win, as in train.sh."""
    found = {}
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        if flag.startswith("--") and len(flag) > 2 and not value.startswith("--"):
            found[flag] = value
    return found


def _all(words, flag):
    return [value for before, value in zip(words, words[1:], strict=False) if before == flag]


def _loss_factor(words):
    """How much longer an update takes than a plain one."""
    if words.get("--loss") == "sequence-risk":
        return 5.0  # the n-best of every sentence
    adapted = words.get("--adapt", "plain").partition("=")[0]
    return LOSSES.get(words.get("--loss", "plain"), 1.0) * ADAPTED.get(adapted, 1.0)


def _share_done(stage, updates):
    """Share of a stopped or running training's updates that its log tells of."""
    log = Path(stage.out + ".log")
    if not log.exists():
        return 0.0
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        tail = file.read().decode("utf-8", "replace")
    _, found, rest = tail.rpartition('num_updates": "')
    number = rest.partition('"')[0]
    return min(1.0, float(number) / updates) if found and number.isdigit() else 0.0


def training_memory(size, vocabulary, max_tokens, precision="fp32", device="cpu"):
    """Bytes at the peak of training a model.

    Weights, gradients and Adam's two moments take 16 bytes for a parameter (20 in half precision,
    which keeps a copy in fp32). What the backward pass needs of a layer is about 34 × width values
    of 2 bytes for a token (Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, without the
    attention weights), half as much again in a decoder layer, which has a second attention. The
    output layer holds four matrices of vocabulary × tokens in fp32.
    """
    shape = SIZES[size]
    parameters = parameter_count(PREFIX + size, vocabulary)["parameters"]
    wide = 2 if precision == "fp32" else 1
    layers = shape.encoder_layers + 1.5 * shape.decoder_layers
    activations = 34 * wide * shape.width * layers * max_tokens
    output = 4 * 4 * vocabulary * max_tokens
    return PROCESS[device] + BYTES_PER_PARAMETER[precision] * parameters + activations + output


def _sampled(folder, langs, vocabulary):
    """``Text`` of a folder of text, from the beginnings of its files."""
    try:
        files = [sorted(_files(folder, "train", lang)) for lang in langs]
        if not all(files):
            return Text(known="not there")
        lines, source = _length(files[0])
        _, target = _length(files[1])
        dev = [_lines(path)[0] for path in _files(folder, "dev", langs[0])]
    except (OSError, ValueError, EOFError) as error:
        return Text(known=f"not readable ({error})")
    return Text(lines, target / characters_in_piece(langs[1], vocabulary) + 1, source + target,
                round(sum(dev)) if dev else 1000, "sampled")  # fmt: skip


def characters_in_piece(lang, vocabulary):
    """About how many characters a subword has: more in a larger vocabulary.

    Measured on German and English: 3.1 with 3,000 pieces, 3.5 with 6,000.
    """
    return DENSE.get(lang, LATIN) * (1 + 0.125 * math.log(max(vocabulary, 300) / 30_000))


def _files(folder, split, lang):
    """Files of a split: one, or shards."""
    return [
        path for path in Path(folder).glob(f"{split}.*")
        if path.name.removesuffix("".join(set(path.suffixes) & set(PACKED))).endswith(f".{lang}")
    ]  # fmt: skip


def _length(files):
    """(lines, characters in a line) of files together."""
    found = [_lines(path) for path in files]
    lines = sum(number for number, _ in found)
    return lines, sum(number * length for number, length in found) / max(1, lines)


def _lines(path):
    """(number of lines, characters in a line) of a text file; estimated where it is long."""
    lengths, characters = Counter(), 0
    with open_bytes(path) as file:
        for line in file:
            lengths["lines"] += 1
            lengths["bytes"] += len(line)
            characters += len(line.decode("utf-8", "replace"))
            if lengths["lines"] == MANY:
                break
        else:
            return lengths["lines"], characters / max(1, lengths["lines"])
        total = _bytes(path, file, lengths)
    return total / lengths["bytes"] * MANY, characters / MANY


def _bytes(path, file, read):
    """Bytes of a text file, decompressed."""
    size = path.stat().st_size
    if path.suffix not in PACKED:
        return size
    if path.suffix == ".gz" and size < 5e7:  # reading it through takes a quarter of a second
        with gzip.open(path) as whole:
            return sum(len(block) for block in iter(lambda: whole.read(1 << 20), b""))
    return size * 2.9  # text shrinks to about a third
