"""Measure how fast exported models translate on this machine, all in one run.

The models take turns, round by round, so that a machine that slows down slows
them all; the median round counts. Sentences are decoded in batches with all cores
(one worker each), as dad-generate does; loading, subwords and files are not timed.

Example:
  dad-speed --source test.de --out speed student/small/9/medical/exported teacher/exported
"""

import os
import statistics
import time

from tqdm import tqdm

from data_prep import command
from data_prep.files import read_lines, write_whole_folder
from data_prep.manifest import package_versions, write_json
from data_prep.vocabulary import read_vocabulary
from fairseq_plugins.generation.ctranslate2_backend import DEFAULT_BATCH_TOKENS, CTranslate2Backend
from fairseq_plugins.generation.decoding import Decoding


def main():
    command.run(_main, "dad-speed")


def _main():
    parser = command.parser(__doc__, "dad-speed")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders made by dad-export")
    parser.add_argument("--source", required=True, help="sentences to translate, one a line")
    parser.add_argument("--beam", type=int, default=5, help="beam; greedy decoding is added")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over the sentences")
    parser.add_argument("--out", required=True, help="folder to make, with speed.json")
    args = parser.parse_args()
    with write_whole_folder(args.out) as part:
        record = measure(args.models, args.source, beam=args.beam, rounds=args.rounds)
        write_json(part / "speed.json", record)
    for model, speeds in record["sentences_per_second"].items():
        print(f"{model}: {speeds['beam']:,.0f} sentences/s, greedy {speeds['greedy']:,.0f}")


def measure(models, source, beam=5, rounds=3):
    """Median sentences per second of each model, {"beam": x, "greedy": y}, and how measured.

    Raises:
        ValueError: no sentences to translate, or no rounds.
    """
    lines = [line for line in read_lines(source) if line.strip()]
    if not lines or rounds < 1:
        raise ValueError(
            f"{source} has {len(lines)} sentences and --rounds is {rounds}; both count"
        )
    workers = len(os.sched_getaffinity(0))
    modes = {"beam": beam, "greedy": 1}
    pieces = {}
    for model in models:
        vocabulary = read_vocabulary(model)
        pieces[model] = vocabulary.subwords(vocabulary.source_lang).encode_batch(lines)
    decodings = {
        mode: Decoding(beam=size, batch_tokens=DEFAULT_BATCH_TOKENS["cpu"])
        for mode, size in modes.items()
    }
    backends = {
        (model, mode): CTranslate2Backend(
            model, decoding, device="cpu", compute_type="default", workers=workers, threads=1
        )
        for model in models
        for mode, decoding in decodings.items()
    }
    seconds = {key: [] for key in backends}
    progress = tqdm(total=(rounds + 1) * len(backends), desc="measuring", unit="run")
    for number in range(rounds + 1):
        for (model, mode), backend in backends.items():
            start = time.perf_counter()
            translate(backend, decodings[mode], pieces[model])
            if number:  # the first round warms up
                seconds[model, mode].append(time.perf_counter() - start)
            progress.update()
    progress.close()
    return {
        "source": str(source),
        "sentences": len(lines),
        "device": "cpu",
        "workers": workers,
        "threads_per_worker": 1,
        "beam": beam,
        "rounds": rounds,
        "versions": package_versions(),
        "sentences_per_second": {
            model: {
                mode: round(len(lines) / statistics.median(seconds[model, mode]), 1)
                for mode in modes
            }
            for model in models
        },
    }


def translate(backend, decoding, sentences):
    """Translate piece lists, all batches under way at once."""
    session = backend.session(seed=0)
    started = [
        session.begin([sentences[index] for index in batch])
        for batch in decoding.batches(sentences)
    ]
    for wait in started:
        wait()


if __name__ == "__main__":
    main()
