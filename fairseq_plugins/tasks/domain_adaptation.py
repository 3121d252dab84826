"""Task ``domain_adaptation``: go on from a general-domain checkpoint with in-domain bitext.

Everything of ``sequence_distillation``; only weights are handed over, by fairseq's
own ``--finetune-from-model``: optimiser, schedule, data order, best score and
patience start afresh. On top of that:

- ``--replay`` mixes general-domain pairs into every pass;
- ``--general-valid`` measures the general-domain BLEU before the first update and in every
  validation, and ``--general-floor`` ends the run when too much of it is lost;
- in-domain sets are small, so a fairseq epoch is a part of a pass, chosen by the size of the
  training set unless ``--epoch-fraction`` says otherwise.
"""

import hashlib
import logging
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq import checkpoint_utils, utils
from fairseq.distributed import utils as distributed_utils
from fairseq.tasks import register_task
from omegaconf import II

from data_prep.files import find_text, sha256
from fairseq_plugins.data.companions import References, with_companions
from fairseq_plugins.data.mixture import pairs_in_pass, parse_replay, replay_weights
from fairseq_plugins.evaluation.metrics import score, statistics
from fairseq_plugins.forgetting import GeneralScore, refuse
from fairseq_plugins.proposals import fraction, propose, updates_in_pass
from fairseq_plugins.tasks.options import SequenceDistillationConfig
from fairseq_plugins.tasks.sequence_distillation import SequenceDistillationTask

logger = logging.getLogger(__name__)


@dataclass
class DomainAdaptationConfig(SequenceDistillationConfig):
    epoch_fraction: float = field(
        default=0.0,
        metadata={
            "help": "length of a fairseq epoch as a share of one pass over the data (1, 0.5, 0.25 "
            "...); validation, checkpoints and --patience count such epochs; 0: proposed by the "
            "size of the training set, see dad-propose"
        },
    )
    replay: Optional[str] = field(
        default=None,
        metadata={
            "help": "general-domain bitexts to train on as well, as FOLDER=SHARE,FOLDER=SHARE: "
            "0.25 makes a quarter of the pairs of every pass general, another sample each time; "
            "the domain's own pairs keep their passes"
        },
    )
    general_valid: Optional[str] = field(
        default=None,
        metadata={
            "help": "prepared folder whose dev set is decoded greedily before the first update "
            "and in every validation: general_bleu_greedy, general_bleu_lost"
        },
    )
    general_floor: Optional[float] = field(
        default=None,
        metadata={
            "help": "end the run when --general-valid has lost more than so many BLEU points; a "
            "checkpoint below is never the best one"
        },
    )
    # filled from fairseq's own flags of the same name
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")
    max_tokens: Optional[int] = II("dataset.max_tokens")
    batch_size: Optional[int] = II("dataset.batch_size")
    max_tokens_valid: Optional[int] = II("dataset.max_tokens_valid")
    batch_size_valid: Optional[int] = II("dataset.batch_size_valid")
    update_freq: Any = II("optimization.update_freq")
    lr: Any = II("optimization.lr")
    workers: int = II("distributed_training.distributed_world_size")


@register_task("domain_adaptation", dataclass=DomainAdaptationConfig)
class DomainAdaptationTask(SequenceDistillationTask):
    """Continue a general-domain model on a domain.

    With ``--replay`` this is mixed fine-tuning (Chu et al. 2017,
    https://aclanthology.org/P17-2061).

    Raises:
        ValueError: training would start from nothing, or an option is out of range.
    """

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self.replayed = parse_replay(cfg.replay) if cfg.replay else []
        if cfg.general_floor is not None and not cfg.general_floor >= 0:
            raise ValueError(
                f"--general-floor is a number of BLEU points, 0 or more, not {cfg.general_floor}"
            )
        own = {Path(folder) for folder, _ in self.bitexts}
        for folder, _ in self.replayed:
            self.check_prepared_alike(folder)
            if Path(folder) in own:
                raise ValueError(
                    f"--replay names {folder}, which is trained on as in-domain bitext already; "
                    "name the general-domain bitext"
                )
        self.general = None  # GeneralScore, while --general-valid is watched
        self._saved_slices = None

    # -- start and resume ----------------------------------------------------------------

    def check_start(self, cfg):
        if not cfg.finetune_from_model and cfg.restore_file == "checkpoint_last.pt":
            raise ValueError(
                "--task domain_adaptation starts from a general-domain model; name it with "
                "--finetune-from-model, or train from scratch with --task sequence_distillation"
            )
        if cfg.general_valid:
            self._watch(cfg.general_valid)
        super().check_start(cfg)

    def check_training_options(self):
        super().check_training_options()
        if self.cfg.general_floor is not None and not self.cfg.general_valid:
            raise ValueError(
                "--general-floor needs a general-domain dev set; name its prepared folder with "
                "--general-valid"
            )

    def resume(self, state):
        saved = state.get("task_state") or {}
        self._saved_slices = saved.get("slices")
        reason = super().resume(state)
        if self.general:
            self.general.restore(
                saved.get("general"), Path(self.cfg.save_dir) / "checkpoint_last.pt"
            )
            reason = self.general.reason_to_stop() or reason
            if self.general.below_floor and math.isnan(state["extra_state"].get("best", 0.0)):
                self._end_without_best()
        return reason

    def state_dict(self):
        state = {**super().state_dict(), "slices": self._saved_slices}
        if self.general:
            state["general"] = self.general.state_dict()
        return state

    # -- data ----------------------------------------------------------------------------

    def training_folders(self):
        return [*super().training_folders(), *self.replayed]

    def held_out_folders(self):
        watched = [self.cfg.general_valid] if self.cfg.general_valid else []
        return [*super().held_out_folders(), *watched]

    def weights(self, lengths):
        own = super().weights(lengths[: len(self.bitexts)])
        pairs = sum(pairs_in_pass(own, lengths[: len(own)]))
        shares = [share for _, share in self.replayed]
        return [*own, *replay_weights(pairs, lengths[len(own) :], shares)]

    def check_epoch_fraction(self):
        if self.cfg.epoch_fraction != 0:
            super().check_epoch_fraction()

    def slices(self, sizes, weights):
        proposal = self._propose(sizes, weights)
        if self.cfg.epoch_fraction:
            self._saved_slices = super().slices(sizes, weights)
        # a run that is resumed with other batches must not count its epochs anew
        elif self._saved_slices is None:
            self._saved_slices = proposal.slices
        logger.info(
            f"adapting: about {proposal.updates:,} updates in a pass, validating every "
            f"{fraction(self._saved_slices)} of it; rules of thumb (dad-propose) would take "
            f"--lr {proposal.lr:g}, and --lr is {self.cfg.lr[0]:g}"
        )
        return self._saved_slices

    def _propose(self, sizes, weights):
        updates = updates_in_pass(
            sizes, weights, self.cfg.max_tokens, self.cfg.batch_size, self.cfg.update_freq[0],
            max(1, self.cfg.workers),
        )  # fmt: skip
        pairs = pairs_in_pass(weights, [len(of_bitext) for of_bitext in sizes])
        return propose(sum(pairs), updates)

    # -- forgetting ----------------------------------------------------------------------

    def _watch(self, folder):
        self.check_prepared_alike(folder)
        texts = [
            find_text(folder, "valid", lang)
            for lang in (self.cfg.source_lang, self.cfg.target_lang)
        ]
        digest = hashlib.sha256("".join(map(sha256, texts)).encode()).hexdigest()
        self.general = GeneralScore(self.cfg.general_floor, digest)
        self._general_pairs = with_companions(
            self._pairs(folder, "valid"), {"references": References(texts[1])}
        )

    def begin_epoch(self, epoch, model):
        super().begin_epoch(epoch, model)
        if self.general and self.general.start is None:
            self.general.start = self._general_bleu(model)
            logger.info(
                f"general-domain BLEU of the start model, greedy: {self.general.start:.2f} "
                f"({self.cfg.general_valid})"
            )

    def train_step(self, *args, **kwargs):
        # fairseq has no way to say in a validation that the run is over, and would make
        # another update
        if self.general and self.general.below_floor:
            if math.isnan(getattr(checkpoint_utils.save_checkpoint, "best", 0.0)):
                self._end_without_best()
            logger.info(f"training stops {self.general.reason_to_stop()}")
            sys.exit(0)
        return super().train_step(*args, **kwargs)

    def _end_without_best(self):
        logger.error(
            f"training stops {self.general.reason_to_stop()}. That was the first validation, so "
            "no checkpoint is above the floor and the start model is the best there is; lower "
            "--lr, validate sooner (--epoch-fraction), mix in --replay, or raise --general-floor"
        )
        sys.exit(1)

    def post_validate(self, model, stats, agg):
        super().post_validate(model, stats, agg)
        # fairseq judges by the first subset, and reads its score right after this
        if not self.general or len(self._validated_splits) > 1:
            return
        self.general.last = self._general_bleu(model)
        stats["general_bleu_greedy"] = round(self.general.last, 2)
        stats["general_bleu_lost"] = round(self.general.lost, 2)
        if self.general.below_floor:
            best = getattr(checkpoint_utils.save_checkpoint, "best", None)
            maximize = self.cfg.maximize_best_checkpoint_metric
            refuse(stats, self.cfg.best_checkpoint_metric, maximize, best)

    def _general_bleu(self, model):
        """Greedy BLEU of the watched dev set; every worker decodes its share of it."""
        workers = distributed_utils.get_data_parallel_world_size()
        model.eval()
        generator = self.build_valid_generator(model, 1)
        batches = self.get_batch_iterator(
            self._general_pairs, max_tokens=self.cfg.max_tokens_valid,
            max_sentences=self.cfg.batch_size_valid,
            max_positions=utils.resolve_max_positions(self.max_positions(), model.max_positions()),
            num_shards=workers,
            shard_id=distributed_utils.get_data_parallel_rank() if workers > 1 else 0,
        ).next_epoch_itr(shuffle=False, set_dataset_epoch=False)  # fmt: skip
        device = next(model.parameters()).device
        metric = self._metrics["bleu"]
        sums = torch.zeros(len(statistics(metric, [""], [""])) + 1, dtype=torch.float64)
        for batch in batches:
            if not batch:  # this worker has one batch less than others
                continue
            if device.type == "cuda":
                batch = utils.move_to_cuda(batch, device)
            found = statistics(metric, self.decode(generator, batch, model), batch["references"])
            sums += torch.tensor([*found, len(batch["references"])], dtype=torch.float64)
        if workers > 1:
            sums = sums.to(device)
            distributed_utils.all_reduce(sums, distributed_utils.get_data_parallel_group())
        *found, decoded = sums.tolist()
        if decoded != len(self._general_pairs):
            raise RuntimeError(
                f"decoded {decoded:,.0f} of {len(self._general_pairs):,} sentences of "
                f"{self.cfg.general_valid}; scores would be wrong"
            )
        return score(metric, found)
