"""What happens to a student's network before its training: where it starts, which weights learn."""

from pathlib import Path

from fairseq_plugins.models.freezing import freeze
from fairseq_plugins.models.initialisation import initialise, open_initial_teacher
from fairseq_plugins.models.lora import add_lora, check_options

FIRST_FILE = "checkpoint_last.pt"  # fairseq's default for --restore-file
# settings that decide which weights learn, and their defaults
LEARNING = {"freeze": None, "lora_rank": 0, "lora_alpha": None, "lora_layers": None}


def check_start_of_model(cfg, vocabulary):
    """``InitialTeacher`` to copy weights from, or None.

    Args:
        cfg: ``SequenceDistillationConfig``.
        vocabulary: that of the data.

    Raises:
        FileNotFoundError, ValueError: an option is wrong or contradicts another one.
    """
    check_options(cfg.lora_rank, cfg.lora_alpha, cfg.lora_layers)
    if cfg.lora_rank and cfg.freeze:
        raise ValueError(
            f"--lora-rank lets nothing but its own updates learn; drop --freeze {cfg.freeze}"
        )
    restored = cfg.restore_file != FIRST_FILE
    resumed = (Path(cfg.save_dir) / FIRST_FILE).exists() and not restored
    if cfg.lora_rank and not (cfg.finetune_from_model or restored or resumed):
        raise ValueError(
            "--lora-rank adapts a trained model; name it with --finetune-from-model"
        )
    if not cfg.init_from_teacher:
        return None
    for flag, value in (
        ("--finetune-from-model", cfg.finetune_from_model),
        ("--restore-file", restored and cfg.restore_file),
    ):
        if value:
            raise ValueError(
                f"--init-from-teacher {cfg.init_from_teacher} and {flag} {value} both say where "
                f"the weights come from; drop one of them"
            )
    teacher = open_initial_teacher(
        cfg.init_from_teacher, vocabulary, cfg.trust_checkpoint, cfg.allow_unknown_vocabulary
    )
    return None if resumed else teacher


def check_same_weights_learn(path, checkpoint, cfg):
    """Refuse to go on from a checkpoint in which other weights learnt.

    Its optimiser holds the state of those weights.

    Args:
        path: named in the message.
        checkpoint: its contents.
        cfg: ``SequenceDistillationConfig``.

    Raises:
        ValueError: names the flag and both values.
    """
    before = (checkpoint.get("cfg") or {}).get("task") or {}
    for name, default in LEARNING.items():
        then, now = before.get(name, default), getattr(cfg, name)
        if then != now:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{path} was trained with {flag} {then}, not {now}: other weights learnt, so "
                f"training cannot go on from it; pass the same {flag}, or use another --save-dir"
            )


def prepare_training(network, cfg, initial_teacher):
    """Copy the initial teacher's weights, freeze, add low-rank updates: what ``cfg`` says.

    Args:
        network: fairseq transformer that is about to be trained.
        cfg: ``SequenceDistillationConfig``.
        initial_teacher: from :func:`check_start_of_model`.
    """
    if initial_teacher:
        initialise(network, initial_teacher, trust=cfg.trust_checkpoint)
    if cfg.freeze:
        freeze(network, cfg.freeze)
    if cfg.lora_rank:
        add_lora(network, cfg.lora_rank, cfg.lora_alpha, cfg.lora_layers)
