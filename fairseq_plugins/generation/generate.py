"""Translate text files: one line out for each line in, in order, none missing.

Models are MODEL folders (dad-keep-weights), one EXPORTED folder (dad-export), or a CTranslate2
folder made elsewhere; several MODEL folders decode together as an ensemble. With
--translations, a file of translations made elsewhere (an API, a language model) takes the
place of a model.

Killed at any moment, the same command goes on where it was and ends with the same bytes. Work
in progress lies in OUT.part; OUT and OUT.manifest.json appear when all is done. Run the same
command in several processes, on one machine or on several that share the disk, and they
share the work. Ctrl-C and SIGTERM finish the batches under way and keep them.

OUT has one line for each line of the source. --n-best adds OUT.nbest, all candidates with
scores in the format of Moses. Lines with something special (empty, too long, failed) are
treated as --on-empty, --on-long and --on-fail say, counted, and listed in OUT.ledger.tsv.

What you leave open (--compute-type, --workers, --threads, --batch-tokens) is chosen by a short
calibration on a sample of a large corpus. The first and the last of them may change the
last digits of a score, and so a few translations: set them where every byte matters, or
pass --calibrate speed, which leaves them alone.

Examples:
  dad-generate --model teacher/general --source train.de --out distilled/train.en
  dad-generate --model teacher/a teacher/b --source test.de.gz --out test.en --beam 12
  dad-generate --model teacher/general --source train.de --out train.en --n-best 8 --beam 8
  dad-generate --model teacher/general --source mono1.de mono2.de --out mono1.en mono2.en
  dad-generate --model teacher/general --source dev.de --out samples.en --sample --n-best 32
  dad-generate --translations answers.jsonl --source train.de --out train.en --on-fail drop
"""

import itertools
from dataclasses import replace

from tqdm import tqdm

from data_prep.command import bar_settings, parser, run
from data_prep.files import read_lines, sha256
from fairseq_plugins.generation.backends import (
    AS_SAVED,
    BACKENDS,
    COMPUTE_TYPES,
    DEVICES,
    choose,
    workers_and_threads,
)
from fairseq_plugins.generation.calibration import MOST_LINES, Speed, calibrate
from fairseq_plugins.generation.converted import (
    add_conventions,
    is_converted,
    open_converted,
    refuse_conventions,
)
from fairseq_plugins.generation.decoding import (
    DEFAULT_BEAM,
    MAX_SOURCE_PIECES,
    Decoding,
    Sampling,
    beam_for,
    check_numbers,
    longest_source,
)
from fairseq_plugins.generation.job import TakenShard, make, open_job, say
from fairseq_plugins.generation.models import add_checkpoint_flags, check_ensemble, open_model
from fairseq_plugins.generation.policies import CHOICES, Policies
from fairseq_plugins.generation.teacher import EMPTY_SOURCE, FAILED, Teacher, decode
from fairseq_plugins.generation.translations import check_same_source, read_translations

PROG = "dad-generate"

SHARD_LINES = 2000
ELSEWHERE = "translations"  # in place of a backend
FOR_TRANSLATIONS = (
    "references", "n_best", "on_empty", "on_fail", "shard_lines", "overwrite"
)  # fmt: skip
CALIBRATIONS = ("all", "speed", "off")
ENGINES = ("local", "ray")


def generate(
    models, source, out, *, references=None, backend=None, device=None, compute_type=None,
    beam=None, n_best=1, length_penalty=1.0, sampling=None, max_length=None,
    max_source_pieces=None, on_empty="empty", on_long="truncate", on_fail="stop",
    batch_tokens=None, shard_lines=SHARD_LINES, workers=None, threads=None, calibration="all",
    engine="local", address="auto",
    trust=False, allow_unknown_vocabulary=False, overwrite=False, **converted,
):  # fmt: skip
    """Translate the lines of ``source`` into file ``out``; return the manifest, a dictionary.

    Args:
        models: list of MODEL folders, of one EXPORTED or of one CONVERTED folder.
        source: UTF-8 text, plain, ``.gz`` or ``.zst``.
        out: file to make; ``OUT.part`` is the work folder, ``OUT.manifest.json`` the manifest.
        references: text with the reference of each line, where a policy asks for it.
        backend: "ctranslate2", "fairseq" or None (ctranslate2 where it can).
        device: "cpu", "cuda" or None (a GPU where the backend finds one).
        compute_type: how to compute; None: float32 on CPU, float16 on GPU, and what it was
            saved with for an EXPORTED folder, unless the calibration finds something faster.
        beam: hypotheses kept at each step, 1 is greedy; None: 5, or ``n_best`` if that is more.
        n_best: candidates of each line; more than 1 makes ``OUT.nbest``, too.
        length_penalty: exponent of the length by which scores are divided.
        sampling: ``Sampling``, to draw translations instead of searching.
        max_length: most pieces of a translation; None: 2 × source + 10, rounded up.
        max_source_pieces: most pieces of a source line; None: 250, or what the model can read.
        on_empty, on_long, on_fail: see ``Policies``.
        batch_tokens: most source pieces in a batch; None: by backend and device, or calibrated.
        shard_lines: lines that are kept or lost together when the run is killed.
        workers: batches decoded at once; None: one for each usable core, or calibrated.
        threads: threads for each worker; None: 1, or calibrated.
        calibration: "all" that is left open, "speed" (workers and threads), or "off".
        engine: "local", or "ray" to decode on a cluster, where nothing is calibrated.
        address: of the cluster, see ``RayEngine``.
        trust: unpickle whatever a checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a vocabulary fingerprint.
        overwrite: replace an ``out`` that was made otherwise.
        converted: for a CONVERTED folder, see ``open_converted``.

    Returns:
        the manifest; "counts" has lines, empty_sources, too_long, failed, empty_outputs (of
        lines that were decoded), from_reference, dropped, tokens, sentences_per_second
        (decoding alone), load_seconds, ...

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    check_numbers(
        beam=beam, n_best=n_best, max_length=max_length, max_source_pieces=max_source_pieces,
        batch_tokens=batch_tokens, shard_lines=shard_lines, workers=workers, threads=threads,
    )  # fmt: skip
    beam = _beam(beam, n_best, sampling)
    for flag, value, known in (
        ("--calibrate", calibration, CALIBRATIONS), ("--engine", engine, ENGINES),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{flag} is one of {', '.join(known)}, not {value}")
    policies = Policies(on_empty, on_long, on_fail)
    job = open_job(source, out, references, policies, n_best, shard_lines)
    found = _open_models(models, trust, allow_unknown_vocabulary, converted)
    choice = choose(
        found, backend=backend or "auto", device=device or "auto", compute_type=compute_type,
        trust=trust,
    )  # fmt: skip
    wishes = {
        **job.identity,
        "models": [model.files for model in found],
        "around_pieces": found[0].settings,
        "backend": backend,
        "device": device,
        "compute_type": compute_type,
        "beam": beam,
        "length_penalty": length_penalty,
        "sampling": vars(sampling) if sampling else None,
        "max_length": max_length,
        "max_source_pieces": max_source_pieces,
        "batch_tokens": batch_tokens,
    }
    given = {name for name, value in (
        ("compute_type", compute_type), ("workers", workers), ("threads", threads),
        ("batch_tokens", batch_tokens),
    ) if value is not None}  # fmt: skip
    decoding = Decoding(
        beam, length_penalty, max_length, batch_tokens or choice.default_batch_tokens, n_best,
        sampling,
    )  # fmt: skip
    codec = found[0].codec()
    if found[0].exported:
        given.add("compute_type")  # what it was saved with

    def resolve(work):
        """Settle what was left open: the settings of the whole decoding."""
        speed = Speed(
            choice.compute_type, *workers_and_threads(choice, workers, threads),
            decoding.batch_tokens,
        )  # fmt: skip
        measured = []
        open_fields = {"all": given, "speed": given | {"compute_type", "batch_tokens"}}
        if calibration != "off" and engine == "local" and job.lines > shard_lines:
            speed, measured = calibrate(
                choice.prepared(work), speed, open_fields[calibration], decoding, codec,
                _sample(job.source, job.lines), job.lines, max_source_pieces, say,
            )  # fmt: skip
        return {
            **wishes,
            "backend": choice.name,
            "device": choice.device,
            "compute_type": speed.compute_type,
            "batch_tokens": speed.batch_tokens,
        }, {"workers": speed.workers, "threads": speed.threads, "calibration": measured}

    def load(work, settings, speed):
        """The engine that decodes, and how many shards it takes at once."""
        resolved = replace(decoding, batch_tokens=settings["batch_tokens"])
        chosen = replace(choice, compute_type=settings["compute_type"]).prepared(work)
        if engine == "ray":
            return _ray_engine(
                chosen, resolved, max_source_pieces, on_long == "truncate", threads or 1,
                converted, address, workers,
            )  # fmt: skip
        many = {"workers": workers or speed["workers"], "threads": threads or speed["threads"]}
        decoder = chosen.load(resolved, **many)
        teacher = Teacher(
            codec, decoder, resolved, cut=on_long == "truncate",
            longest=longest_source(max_source_pieces, decoder.source_positions),
        )  # fmt: skip
        # a shard that is sampled keeps one worker busy, see CTranslate2Backend.session
        return LocalEngine(teacher, many["workers"], at_once=many["workers"] if sampling else 1)

    return make(job, wishes, resolve, load, overwrite, [model.weights for model in found])


class LocalEngine:
    """Decodes in this process.

    Args:
        teacher: ``Teacher``.
        workers: batches that its backend decodes at the same time.
        at_once: shards that are begun side by side.
    """

    def __init__(self, teacher, workers, at_once=1):
        self._teacher, self._workers, self._at_once = teacher, workers, at_once

    def decode(self, tasks, should_stop, advance):
        """Yield decoded shards; ``tasks`` are (number, lines, what an earlier run kept)."""
        return decode(
            (self._teacher.shard(*task) for task in tasks), workers=self._workers,
            at_once=self._at_once, should_stop=should_stop, advance=advance,
        )  # fmt: skip


def _ray_engine(choice, decoding, max_source_pieces, cut, threads, converted, address, workers):
    from fairseq_plugins.generation.ray_engine import Parcel, RayEngine  # Ray only when wanted

    longest = longest_source(max_source_pieces, choice.source_positions())
    parcel = Parcel.pack(
        choice, converted, decoding=decoding, longest=longest, cut=cut, threads=threads
    )
    return RayEngine(parcel, address=address, workers=workers)


def take_translations(
    translations, source, out, *, made_from=None, references=None, n_best=1, on_empty="empty",
    on_fail="stop", shard_lines=SHARD_LINES, overwrite=False,
):  # fmt: skip
    """Make the same files as :func:`generate` from translations made elsewhere.

    Args:
        translations: file of translations, see ``read_translations``.
        made_from: the text that was translated, where it is known; it must be ``source``.
        source, out, references, n_best, on_empty, on_fail, shard_lines, overwrite:
            as for :func:`generate`; a line without translation has failed.

    Returns:
        the manifest.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see the message.
    """
    check_numbers(n_best=n_best, shard_lines=shard_lines)
    policies = Policies(on_empty=on_empty, on_fail=on_fail)
    if made_from is not None:
        check_same_source(made_from, source)
    # to the end, and before anything is written: a file that is too long shows only there
    for _ in tqdm(
        read_translations(translations, source, n_best), desc="checking", unit=" sentences",
        unit_scale=True, **bar_settings(),
    ):  # fmt: skip
        pass
    job = open_job(source, out, references, policies, n_best, shard_lines)
    wishes = {**job.identity, "backend": ELSEWHERE, "translations": sha256(translations)}

    def load(work, settings, speed):
        return TranslationsEngine(read_translations(translations, source, n_best), job)

    return make(job, wishes, lambda work: (wishes, {}), load, overwrite, [translations])


class TranslationsEngine:
    """Takes the place of a decoder.

    Args:
        candidates: iterator over the candidates of every source line.
        job: ``Job``.
    """

    def __init__(self, candidates, job):
        self._candidates, self._job, self._at = candidates, job, 0

    def decode(self, tasks, should_stop, advance):
        """Yield shards; ``tasks`` are (number, lines, what an earlier run kept)."""
        for number, lines, _ in tasks:
            first = number * self._job.shard_lines
            found = list(
                itertools.islice(
                    self._candidates, first - self._at, first - self._at + len(lines)
                )
            )
            self._at = first + len(lines)
            special = {
                index: (FAILED if line.strip() else EMPTY_SOURCE, 0)
                for index, line in enumerate(lines)
                if not found[index] or not line.strip()
            }
            advance(len(lines))
            yield TakenShard(number, found, special)


def _open_models(models, trust, allow_unknown_vocabulary, converted):
    converted = {name: value for name, value in converted.items() if value is not None}
    if any(is_converted(path) for path in models):
        if len(models) > 1:
            raise ValueError("CTranslate2 has no ensembles; name one model")
        return [open_converted(models[0], **converted)]
    refuse_conventions(models[0], **converted)
    found = [open_model(path, trust, allow_unknown_vocabulary) for path in models]
    check_ensemble(found)
    return found


def _beam(beam, n_best, sampling):
    if sampling is not None:
        if beam is not None:
            raise ValueError("--beam searches and --sample draws; leave one of them out")
        if sampling.top_k == 1 and n_best > 1:
            raise ValueError("--top-k 1 draws the same translation every time; leave out --n-best")
        return None
    return beam_for(beam, n_best)


def _sample(source, lines):
    """Lines spread evenly over the source, in an order that mixes them."""
    step = max(lines // MOST_LINES, 1)
    chosen = [line for line in itertools.islice(read_lines(source), 0, None, step)][:MOST_LINES]
    return [chosen[i] for start in range(7) for i in range(start, len(chosen), 7)]


def main():
    run(_main, PROG)


def _main():
    words = _parser()
    args = vars(words.parse_args())
    sources, outs, models = args.pop("source"), args.pop("out"), args.pop("model")
    translations, made_from = args.pop("translations"), args.pop("translations_of")
    for flag, files in (("--out", outs), ("--translations", translations),
                        ("--translations-of", made_from)):  # fmt: skip
        if files and len(files) != len(sources):
            raise ValueError(
                f"--source names {len(sources)} files and {flag} {len(files)}; "
                f"each source has its own"
            )
    if translations:
        for name, value in args.items():
            if name not in FOR_TRANSLATIONS and value != words.get_default(name):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is for models; --translations are taken as they are")
        args = {name: args[name] for name in FOR_TRANSLATIONS}
        for taken, source, out, of in zip(
            translations, sources, outs, made_from or [None] * len(sources)
        ):
            _report(out, take_translations(taken, source, out, made_from=of, **args))
        return
    if made_from:
        raise ValueError("--translations-of tells what --translations were made of; name these")
    drawing = {name: args.pop(name) for name in ("top_k", "top_p", "temperature", "seed")}
    if args.pop("sample"):
        args["sampling"] = Sampling(**drawing)
    for name in ("backend", "device"):
        args[name] = None if args[name] == "auto" else args[name]
    args["trust"] = args.pop("trust_checkpoint")
    for source, out in zip(sources, outs):
        _report(out, generate(models, source, out, **args))


def _report(out, record):
    counts, settings = record["counts"], record["settings"]
    special = [
        f"{counts[name]:,} {words}"
        for name, words in (
            ("empty_sources", f"empty ({settings['on_empty']})"),
            ("too_long", f"too long ({settings['on_long']})"),
            ("failed", f"failed ({settings['on_fail']})"),
            ("empty_outputs", "with an empty translation"),
        )
        if counts[name]
    ]
    lines = f"{out}: {counts['lines']:,} lines ({', '.join(special) or 'none special'})"
    if settings["backend"] == ELSEWHERE:
        say(f"{lines}, taken from translations made elsewhere")
        return
    how = f"beam {settings['beam']}" if settings["beam"] else "sampled"
    say(
        f"{lines}; {counts['sentences_per_second'] or 0:,.0f} sentences/s, {settings['backend']}, "
        f"{settings['compute_type'].replace(AS_SAVED, 'computed as saved')}, {how}"
    )


def _parser():
    words = parser(__doc__, PROG)
    teacher = words.add_mutually_exclusive_group(required=True)
    teacher.add_argument(
        "--model", nargs="+", metavar="DIR",
        help="MODEL folder, several for an ensemble, one EXPORTED folder, or one that "
        "CTranslate2's own converters made",
    )  # fmt: skip
    teacher.add_argument(
        "--translations", nargs="+", metavar="FILE",
        help="translations made elsewhere instead of a model: a line for each line, an n-best "
        'file, or JSONL such as {"line": 17, "translation": "..."}',
    )  # fmt: skip
    words.add_argument(
        "--translations-of", nargs="+", metavar="FILE",
        help="the text that --translations were made from; refused where it is not --source",
    )  # fmt: skip
    words.add_argument(
        "--source", required=True, nargs="+", metavar="FILE",
        help="UTF-8 text, plain, .gz or .zst; several have as many --out",
    )  # fmt: skip
    words.add_argument("--out", required=True, nargs="+", metavar="FILE",
                       help="file of translations to make")  # fmt: skip
    words.add_argument(
        "--overwrite", action="store_true", help="replace an OUT that was made otherwise"
    )

    search = words.add_argument_group("search")
    search.add_argument(
        "--beam", type=int, metavar="N",
        help=f"1 is greedy; unset: {DEFAULT_BEAM}, or as many as --n-best",
    )  # fmt: skip
    search.add_argument("--n-best", type=int, default=1, metavar="N",
                        help="candidates of each line; more than 1 makes OUT.nbest")  # fmt: skip
    search.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="X",
        help="scores are divided by length to this power; more favours longer translations",
    )  # fmt: skip
    search.add_argument(
        "--max-length", type=int, metavar="N",
        help="most pieces of a translation, instead of 2 × source + 10 rounded up",
    )  # fmt: skip

    drawing = words.add_argument_group("sampling (instead of a search; for minimum Bayes risk)")
    drawing.add_argument("--sample", action="store_true", help="draw --n-best translations")
    drawing.add_argument("--top-k", type=int, default=0, metavar="N",
                         help="draw from the N most probable pieces; 0: from all")  # fmt: skip
    drawing.add_argument("--top-p", type=float, default=1.0, metavar="P",
                         help="draw from the fewest pieces with this much probability")  # fmt: skip
    drawing.add_argument("--temperature", type=float, default=1.0, metavar="T",
                         help="above 1: more diverse, below 1: more probable samples")  # fmt: skip
    drawing.add_argument("--seed", type=int, default=1, metavar="N", help="of the sampling")

    special = words.add_argument_group("lines with something special")
    special.add_argument("--references", metavar="FILE",
                         help="reference of each line, for the policies that take it")  # fmt: skip
    special.add_argument("--on-empty", choices=CHOICES["on_empty"], default="empty",
                         help="a source line without text")  # fmt: skip
    special.add_argument(
        "--on-long", choices=CHOICES["on_long"], default="truncate",
        help="a line with more than --max-source-pieces: truncate translates its beginning",
    )  # fmt: skip
    special.add_argument("--on-fail", choices=CHOICES["on_fail"], default="stop",
                         help="a line that the decoder gives up on")  # fmt: skip
    special.add_argument(
        "--max-source-pieces", type=int, metavar="N",
        help=f"most pieces of a source line; unset: {MAX_SOURCE_PIECES}, "
        f"or what the model can read",
    )  # fmt: skip

    speed = words.add_argument_group("speed")
    speed.add_argument("--backend", choices=["auto", *BACKENDS], default="auto",
                       help="auto: ctranslate2 for a single transformer, else fairseq")  # fmt: skip
    speed.add_argument("--device", choices=["auto", *DEVICES], default="auto",
                       help="auto: a GPU where the backend finds one")  # fmt: skip
    speed.add_argument(
        "--compute-type", choices=COMPUTE_TYPES,
        help="unset: calibrated, else float32 on CPU, float16 on GPU, and for an EXPORTED "
        "folder what it was saved with; int8 is often fastest on CPU",
    )  # fmt: skip
    speed.add_argument("--workers", type=int, metavar="N",
                       help="batches decoded at once; unset: calibrated, else one for each "
                       "usable core or GPU")  # fmt: skip
    speed.add_argument("--threads", type=int, metavar="N",
                       help="for each worker; unset: calibrated, else 1")  # fmt: skip
    speed.add_argument("--batch-tokens", type=int, metavar="N",
                       help="most source pieces in a batch; unset: calibrated, else by "
                       "backend")  # fmt: skip
    speed.add_argument(
        "--calibrate", dest="calibration", choices=CALIBRATIONS, default="all",
        help="what is measured where it is unset: all, speed (workers and threads), or off",
    )  # fmt: skip
    speed.add_argument(
        "--engine", choices=ENGINES, default="local",
        help="ray: decode on a Ray cluster (pip install -r requirements-ray.txt)",
    )  # fmt: skip
    speed.add_argument(
        "--address", default="auto", metavar="HOST:PORT",
        help="of the Ray cluster; auto: the one that this machine belongs to, local: start one "
        "on this machine",
    )  # fmt: skip
    speed.add_argument(
        "--shard-lines", type=int, default=SHARD_LINES, metavar="N",
        help="lines that are kept or lost together when the run is killed",
    )  # fmt: skip
    add_conventions(words)
    add_checkpoint_flags(words)
    return words


if __name__ == "__main__":
    main()
