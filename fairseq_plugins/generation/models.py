"""The folders that hold a model: what is in them, and whether it belongs together.

MODEL folder: ``model.pt`` and the vocabulary (``dad-keep-weights`` makes it).
EXPORTED folder: CTranslate2's ``model.bin`` and the vocabulary (``dad-export`` makes it); opened
without PyTorch, which may be missing where models are only used.
"""

from dataclasses import dataclass
from pathlib import Path

from data_prep.files import sha256
from data_prep.vocabulary import VOCABULARY_FILE, Vocabulary, differences, read_vocabulary

WEIGHTS = "model.pt"
EXPORTED_WEIGHTS = "model.bin"
EXPORTED_FILES = (EXPORTED_WEIGHTS, "config.json", "shared_vocabulary.json",
                  "source_vocabulary.json", "target_vocabulary.json", "vmap.txt")  # fmt: skip


class Codec:
    """Source lines to pieces and pieces of the target to text.

    Args:
        source, target: ``Subwords`` of the two languages.
    """

    def __init__(self, source, target):
        self.encode_batch, self.cut = source.encode_batch, source.cut
        self.decode, self.decode_batch = target.decode, target.decode_batch


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that was found complete.

    ``files`` maps the name of each file that shapes the translations to its SHA-256.
    """

    path: Path
    exported: bool
    vocabulary: Vocabulary
    files: dict
    positions = None  # CTranslate2 reads them from the manifest, fairseq from the network
    target_prefix = ()
    suppressed = ("<blank>", "<s>")
    settings = None  # nothing that shapes the translations is set by hand

    def codec(self):
        """What turns text into pieces and back: ``encode_batch(lines)``, ``decode(pieces)``."""
        return Codec(*map(self.vocabulary.subwords, self.vocabulary.langs))

    @property
    def weights(self):
        return self.path / (EXPORTED_WEIGHTS if self.exported else WEIGHTS)


def open_model(path, trust=False, allow_unknown_vocabulary=False):
    """Look into a model folder and check that weights and vocabulary belong together.

    Args:
        path: MODEL or EXPORTED folder.
        trust: unpickle whatever the checkpoint holds.
        allow_unknown_vocabulary: accept a checkpoint without a fingerprint.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks its weights.
        ValueError: a vocabulary file was changed, the weights were trained with
            another vocabulary, or the checkpoint is refused.
    """
    path = Path(path)
    if path.is_file():
        raise ValueError(
            f"{path} is a file; name the folder made from it by dad-keep-weights or dad-export"
        )
    if not path.is_dir():
        raise FileNotFoundError(f"model folder {path} is missing")
    exported = (path / EXPORTED_WEIGHTS).is_file()
    if not exported and not (path / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{path} holds neither {WEIGHTS} (made by dad-keep-weights) nor "
            f"{EXPORTED_WEIGHTS} (made by dad-export)"
        )
    if not (path / VOCABULARY_FILE).is_file():
        raise FileNotFoundError(
            f"{path / VOCABULARY_FILE} is missing; a model is kept with its vocabulary: "
            f"dad-keep-weights and dad-export put it there"
        )
    vocabulary = read_vocabulary(path)
    if exported:
        names = [name for name in EXPORTED_FILES if (path / name).is_file()]
    else:
        from fairseq_plugins.checkpoints import check_vocabulary, load_checkpoint, vocabulary_of

        names = [WEIGHTS]
        checkpoint = load_checkpoint(path / WEIGHTS, trust=trust)
        check_vocabulary(
            path / WEIGHTS, vocabulary_of(checkpoint), vocabulary.files, path,
            allow_unknown=allow_unknown_vocabulary,
        )  # fmt: skip
    files = {name: sha256(path / name) for name in names} | vocabulary.files
    return ModelFolder(path, exported, vocabulary, files)


def check_ensemble(models):
    """Refuse models that cannot vote on the same pieces.

    Raises:
        ValueError: two vocabularies differ, or a member is an EXPORTED folder.
    """
    first, *others = models
    for other in others:
        differing = differences(first.vocabulary.files, other.vocabulary.files)
        if differing:
            raise ValueError(
                f"{first.path} and {other.path} cannot decode together: "
                f"{', '.join(differing)} differ"
            )
    exported = [model.path for model in models if model.exported]
    if others and exported:
        raise ValueError(
            f"{exported[0]} is an exported model, and CTranslate2 has no ensembles; "
            f"name MODEL folders, which hold {WEIGHTS}"
        )


def add_checkpoint_flags(words):
    """The two opt-ins that every command which reads checkpoints offers."""
    words.add_argument(
        "--trust-checkpoint", action="store_true",
        help="unpickle whatever a checkpoint holds; such a file can run any program, "
        "so only for files whose maker you know",
    )  # fmt: skip
    words.add_argument(
        "--allow-unknown-vocabulary", action="store_true",
        help="accept a checkpoint that carries no vocabulary fingerprint (stock fairseq's)",
    )  # fmt: skip
