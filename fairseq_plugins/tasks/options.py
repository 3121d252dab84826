"""Options of both tasks; ``domain_adaptation`` adds some of its own."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.tasks.translation import TranslationConfig
from omegaconf import II


@dataclass
class SequenceDistillationConfig(TranslationConfig):
    mixture: Optional[str] = field(
        default=None,
        metadata={
            "help": "training bitexts as FOLDER=WEIGHT,FOLDER=WEIGHT, all prepared with the same "
            "vocabulary; weight 2 shows a bitext twice per pass, 0.5 another half of it in each "
            "pass; default: the data folder alone. Dev and test come from the data folder, and "
            "from --valid-domains"
        },
    )
    mixture_temperature: float = field(
        default=1.0,
        metadata={
            "help": "small bitexts of --mixture are shown more often: weights are multiplied by "
            "(pairs of the largest / pairs) ^ (1 - 1/T); 1: as the weights say, inf: all equally "
            "often; no bitext loses pairs"
        },
    )
    domain_tags: Optional[str] = field(
        default=None,
        metadata={
            "help": "a word before every source of a prepared folder, training and dev, as "
            "FOLDER=TAG,FOLDER=TAG; put the same word before the text to translate"
        },
    )
    source_sampling: float = field(
        default=0.0,
        metadata={
            "help": "cut the training sources into pieces at random, anew in every epoch: alpha "
            "of subword regularisation (unigram models; 0.1 to 0.5 is usual, small is wild) or "
            "the share of merges left out (BPE models; 0.1 is usual); 0 is off"
        },
    )
    valid_domains: Optional[str] = field(
        default=None,
        metadata={
            "help": "dev sets of other domains as NAME=FOLDER,NAME=FOLDER; --valid-subset "
            "valid,valid_NAME validates them too. The first of --valid-subset chooses the best "
            "checkpoint"
        },
    )
    epoch_fraction: float = field(
        default=1.0,
        metadata={
            "help": "length of a fairseq epoch as a share of one pass over the data (1, 0.5, 0.25 "
            "...); validation, checkpoints and --patience count such epochs"
        },
    )
    valid_beam: int = field(
        default=5,
        metadata={
            "help": "beam of the decoding in validation, which is done greedily too; "
            "0 turns decoding off"
        },
    )
    valid_length_penalty: float = field(
        default=1.0, metadata={"help": "length penalty of the decoding in validation"}
    )
    candidates: Optional[str] = field(
        default=None,
        metadata={
            "help": "for --criterion minimum_risk: FOLDER[:FOLDER...] made by dad-candidates, each "
            "put beside the bitext (or dev set) that it was made for; a bitext without one "
            "learns from its targets alone"
        },
    )
    teacher_cache: Optional[str] = field(
        default=None,
        metadata={
            "help": "folders that dad-cache-teacher wrote, with colons between: one for each "
            "bitext of the mixture, in any order; what a criterion distils from"
        },
    )
    trust_checkpoint: bool = field(
        default=False,
        metadata={
            "help": "unpickle whatever a checkpoint holds; only for files whose maker you know"
        },
    )
    allow_unknown_vocabulary: bool = field(
        default=False,
        metadata={
            "help": "accept a checkpoint that carries no vocabulary fingerprint (stock fairseq's)"
        },
    )
    init_from_teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "start from layers of a teacher of the same width: first=MODEL or "
            "every-other=MODEL (spread evenly); default: random weights"
        },
    )
    freeze: Optional[str] = field(
        default=None,
        metadata={
            "help": "weights that do not learn, separated by commas: embeddings, encoder, decoder, "
            "output, attention, ffn, norms, or regular expressions on their names"
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={"help": "rank of the low-rank updates that learn in place of the weights (LoRA)"},
    )
    lora_alpha: Optional[float] = field(
        default=None,
        metadata={"help": "updates are scaled by alpha / rank; default: twice the rank"},
    )
    lora_layers: Optional[str] = field(
        default=None,
        metadata={
            "help": "linear layers that get updates, as in --freeze; default: attention,ffn"
        },
    )
    # filled from fairseq's own flags of the same name
    seed: int = II("common.seed")
    valid_subset: str = II("dataset.valid_subset")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    patience: int = II("checkpoint.patience")
    max_update: int = II("optimization.max_update")
    decode_with: Optional[str] = II("common_eval.path")
