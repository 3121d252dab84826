"""Task ``sequence_distillation``: translation with complete decoding and honest validation.

On top of fairseq's ``translation`` task:

- the training set is a mixture of bitexts (references, distilled targets, several domains),
  by weight or temperature, its sources tagged by domain or cut into pieces at random;
- validation decodes every sentence, greedy and with a beam, undoes the run's own
  subwords and scores against the untouched text: ``bleu``, ``chrf``, ``bleu_greedy``,
  ``chrf_greedy`` stand beside the loss and can choose the best checkpoint; the dev sets
  of several domains are validated in one run;
- a fingerprint of the vocabulary travels in the checkpoint; another vocabulary is refused;
- checkpoints are read as data only, see ``fairseq_plugins.checkpoints``;
- ``--patience`` survives a resume.
"""

import functools
import logging
import os
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
from fairseq import utils
from fairseq.logging import metrics as fairseq_metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask
from omegaconf import DictConfig

from data_prep.files import find_text, read_lines
from data_prep.vocabulary import differences, read_vocabulary
from fairseq_plugins.checkpoints import (
    TRUST_VARIABLE,
    check_vocabulary,
    load_checkpoint,
    mend_last_checkpoint,
    vocabulary_of,
)
from fairseq_plugins.data.candidates import CandidatesFolders
from fairseq_plugins.data.companions import References, with_companions
from fairseq_plugins.data.mixture import (
    MixtureDataset,
    pairs_in_pass,
    parse_domains,
    parse_mixture,
    slices_per_pass,
    tempered,
)
from fairseq_plugins.data.subword_sampling import SampledSources, piece_sampler
from fairseq_plugins.data.tags import check_tag, parse_tags, put_before_sources
from fairseq_plugins.data.teacher_targets import KEY as TEACHER
from fairseq_plugins.data.teacher_targets import TeacherCaches
from fairseq_plugins.early_stopping import patience, reason_to_stop, restore_patience
from fairseq_plugins.evaluation.metrics import build_metric, score, statistics
from fairseq_plugins.models.lora import once_per_batch, read_any_checkpoint
from fairseq_plugins.models.start import (
    check_same_weights_learn,
    check_start_of_model,
    prepare_training,
)
from fairseq_plugins.tasks.options import SequenceDistillationConfig

logger = logging.getLogger(__name__)

VALIDATION_METRICS = ("bleu", "chrf")
OWN_STATE = ("vocabulary", "patience", "kept", "general", "slices")  # of a run, not of a model
READ_BY = {
    "teacher_cache": "word_distillation, selective_distillation or anchored_adaptation",
    "candidates": "minimum_risk",
}
MAX_LENGTH_RATIO, MAX_LENGTH_MARGIN = 2, 20  # target pieces at most: 2 x source pieces + 20


@register_task("sequence_distillation", dataclass=SequenceDistillationConfig)
class SequenceDistillationTask(TranslationTask):
    """Sequence-level knowledge distillation (Kim & Rush 2016): train on a teacher's output.

    Args:
        cfg: ``SequenceDistillationConfig``.
        src_dict, tgt_dict: fairseq dictionaries of the prepared folder.

    Raises:
        ValueError: an option is out of range, a folder was prepared with another
            vocabulary, or a checkpoint does not fit the data.
        FileNotFoundError: a folder lacks its vocabulary or its text.
    """

    network = None  # the model that is trained; criterions are built after it

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        if cfg.eval_bleu:
            raise ValueError("--eval-bleu scores re-joined pieces; use --valid-beam instead")
        if cfg.valid_beam < 0:
            raise ValueError(f"--valid-beam is 0 or more, not {cfg.valid_beam}")
        if not 0 <= cfg.source_sampling <= 1:
            raise ValueError(
                f"--source-sampling is 0 (off) to 1, usually 0.1, not {cfg.source_sampling}"
            )
        tempered([1], [1], cfg.mixture_temperature)  # refuses a bad one before anything is loaded
        self.check_epoch_fraction()
        self.data_folder = Path(utils.split_paths(cfg.data)[0])
        self.vocabulary = read_vocabulary(self.data_folder)
        self.source_subwords, self.target_subwords = map(
            self.vocabulary.subwords, self.vocabulary.langs
        )
        self.bitexts = parse_mixture(cfg.mixture) if cfg.mixture else [(self.data_folder, 1.0)]
        self.valid_domains = parse_domains(cfg.valid_domains) if cfg.valid_domains else {}
        self.tags = parse_tags(cfg.domain_tags) if cfg.domain_tags else {}
        for folder in {*(folder for folder, _ in self.bitexts), *self.valid_domains.values()}:
            self.check_prepared_alike(folder)
        self._metrics = {
            name: build_metric(name, cfg.target_lang or self.vocabulary.target_lang)
            for name in VALIDATION_METRICS
        }
        self._kept, self._resumed = {}, {}
        self._generators = {}
        self._validated_splits = []
        self._initial_teacher = None

    @classmethod
    def setup_task(cls, cfg, from_checkpoint=False, **kwargs):
        """Build the task; refuse a checkpoint that does not fit before anything else is loaded."""
        if cfg.trust_checkpoint:
            os.environ[TRUST_VARIABLE] = "1"
        task = super().setup_task(cfg, **kwargs)
        # a plain dataclass or a checkpoint's own settings: nobody is about to train or resume
        if isinstance(cfg, DictConfig) and not from_checkpoint:
            task.check_tags()
            if cfg.decode_with:
                for path in utils.split_paths(cfg.decode_with):
                    task.check_checkpoint(path)
            else:
                task.check_start(cfg)
        return task

    # -- checkpoints ---------------------------------------------------------------------

    def check_start(self, cfg):
        """Check how, and from which checkpoint, fairseq-train is about to start or go on."""
        self.check_training_options()
        last = Path(cfg.save_dir) / "checkpoint_last.pt"
        self._initial_teacher = check_start_of_model(cfg, self.vocabulary)
        if cfg.restore_file != "checkpoint_last.pt":
            if Path(cfg.restore_file).exists():
                self.check_checkpoint(cfg.restore_file)
        elif last.exists():
            mend_last_checkpoint(last)
            state = self.check_checkpoint(last)
            check_same_weights_learn(last, state, cfg)
            reason = self.resume(state)
            if reason:
                logger.info(f"{last}: training was complete already, {reason}")
                sys.exit(0)
        elif cfg.finetune_from_model:
            self.check_checkpoint(cfg.finetune_from_model)

    def check_training_options(self):
        """Refuse options that would have no effect on the training that is about to start.

        Raises:
            ValueError: names the option and what is missing.
        """
        if self.cfg.mixture_temperature != 1 and not self.cfg.mixture:
            raise ValueError(
                "--mixture-temperature weighs the bitexts of a mixture; name them with --mixture"
            )
        validated = self.cfg.valid_subset.split(",")
        missing = [f"valid_{name}" for name in self.valid_domains]
        missing = [split for split in missing if split not in validated]
        if missing:
            raise ValueError(
                f"--valid-domains names a dev set that is not validated; "
                f"add --valid-subset {','.join([*validated, *missing])} (the first of them "
                f"chooses the best checkpoint)"
            )

    def resume(self, state):
        """Take over what an earlier run of this training saved in the task's state.

        Args:
            state: contents of the last checkpoint.

        Returns:
            why the training was complete already, or None.
        """
        task_state = state.get("task_state") or {}
        saved_patience = task_state.get("patience")
        restore_patience(saved_patience)
        self._resumed = task_state.get("kept", {})
        updates = state["optimizer_history"][-1]["num_updates"]
        return reason_to_stop(updates, saved_patience, self.cfg.max_update, self.cfg.patience)

    def check_checkpoint(self, path):
        """Contents of a checkpoint whose vocabulary is ours; ValueError otherwise."""
        state = load_checkpoint(path, trust=self.cfg.trust_checkpoint)
        self._check_vocabulary(path, vocabulary_of(state))
        return state

    def _check_vocabulary(self, path, theirs):
        check_vocabulary(
            path, theirs, self.vocabulary.files, self.data_folder,
            allow_unknown=self.cfg.allow_unknown_vocabulary,
        )  # fmt: skip

    def state_dict(self):
        return {
            **super().state_dict(),
            "vocabulary": dict(self.vocabulary.files),
            "patience": patience(),
            "kept": {name: holder.state_dict() for name, holder in self._kept.items()},
        }

    def keep_state(self, name, holder):
        """Let ``holder.state_dict()`` travel in checkpoints, as a criterion's does not.

        Where training goes on from a checkpoint that has it, ``holder.load_state_dict`` gets
        it now. It may hold tensors and plain containers. Of several workers the first one's is
        saved.
        """
        self._kept[name] = holder
        if name in self._resumed:
            holder.load_state_dict(self._resumed.pop(name))

    def load_state_dict(self, state_dict):
        # fairseq calls this before it loads the weights, for every member of an ensemble
        self._check_vocabulary("to be loaded", state_dict.get("vocabulary"))
        super().load_state_dict({k: v for k, v in state_dict.items() if k not in OWN_STATE})

    def check_prepared_alike(self, folder):
        theirs = read_vocabulary(folder)
        if theirs.files != self.vocabulary.files:
            raise ValueError(
                f"{folder} and {self.data_folder} were prepared with different vocabularies "
                f"({', '.join(differences(self.vocabulary.files, theirs.files))}); "
                f"prepare both with the same one (python -m data_prep.binarise --vocabulary ...)"
            )

    def build_criterion(self, cfg, from_checkpoint=False):
        criterion = super().build_criterion(cfg, from_checkpoint)
        for name, criterions in READ_BY.items():
            if getattr(self.cfg, name) and name not in getattr(criterion, "reads", ()):
                raise ValueError(
                    f"--{name.replace('_', '-')} is given and --criterion {cfg._name} does not "
                    f"read it; {criterions} would"
                )
        return criterion

    # -- data ----------------------------------------------------------------------------

    @functools.cached_property
    def teacher_cache(self):
        """``TeacherCaches``, opened when they are asked for, or None without --teacher-cache."""
        paths = self.cfg.teacher_cache
        return TeacherCaches(paths, self.vocabulary) if paths else None

    @functools.cached_property
    def candidates(self):
        """``CandidatesFolders``, opened when they are asked for, or None without --candidates."""
        paths = self.cfg.candidates
        return CandidatesFolders(utils.split_paths(paths), self.vocabulary) if paths else None

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split; training is the mixture, held-out splits carry their untouched text."""
        if split == self.cfg.train_subset:
            self.datasets[split] = self._training_mixture(epoch, combine)
            return
        folder, name = self._place(split)
        if split.startswith("valid_") and folder == self.data_folder:
            self._check_split_exists(split)
        self.datasets[split] = self._prepared(folder, name, combine)

    def _place(self, split):
        """The prepared folder, and the split in it, that a name in --valid-subset means."""
        folder = self.valid_domains.get(split.removeprefix("valid_"))
        if split.startswith("valid_") and folder:
            return folder, "valid"
        return self.data_folder, split

    def _check_split_exists(self, split):
        binaries = f"{split}.{self.cfg.source_lang}-{self.cfg.target_lang}.*"
        if not any(self.data_folder.glob(binaries)):
            domain = split.removeprefix("valid_")
            known = ", ".join(self.valid_domains) or "none"
            raise ValueError(
                f"--valid-subset names {split}, which is neither a domain of --valid-domains "
                f"({known}) nor a split of {self.data_folder}; add --valid-domains {domain}=FOLDER"
            )

    def _prepared(self, folder, split, combine=False):
        """The pairs of a prepared folder's split, tagged, with what goes beside them."""
        pairs = self._pairs(folder, split, combine)
        return with_companions(pairs, self._companions(folder, split))

    def _pairs(self, folder, split, combine=False):
        data, kept = self.cfg.data, self.datasets.get(split)
        self.cfg.data = str(folder)  # fairseq's loader reads the folder from there
        try:
            super().load_dataset(split, epoch=1, combine=combine)
            pairs = self.datasets.pop(split)
        finally:
            self.cfg.data = data
            if kept is not None:
                self.datasets[split] = kept
        tag = self.tag_ids(folder)
        if tag:
            put_before_sources(pairs, tag)
        return pairs

    def tag_ids(self, folder):
        """Ids of the pieces of a folder's tag; empty if it has none."""
        tags = [tag for named, tag in self.tags.items() if Path(named) == Path(folder)]
        pieces = [piece for tag in tags for piece in self.source_subwords.encode(tag)]
        return [self.src_dict.index(piece) for piece in pieces]

    def check_tags(self):
        """Refuse a tag of a folder that is not used, or that changes the pieces of the text."""
        used = {
            Path(folder)
            for folder in (
                self.data_folder, *(folder for folder, _ in self.training_folders()),
                *self.held_out_folders(),
            )
        }  # fmt: skip
        for folder, tag in self.tags.items():
            if Path(folder) not in used:
                raise ValueError(
                    f"--domain-tags names {folder}, which is not among the prepared folders of "
                    f"this run: {', '.join(sorted(map(str, used)))}"
                )
            text = find_text(folder, "valid", self.cfg.source_lang)
            check_tag(tag, self.source_subwords, read_lines(text))

    def training_folders(self):
        """Prepared folders that training pairs come from, with what the user wrote of each."""
        return self.bitexts

    def held_out_folders(self):
        """Prepared folders, besides the data folder, whose dev set is decoded."""
        return self.valid_domains.values()

    def _companions(self, folder, split):
        """What goes beside the sentence pairs of a folder's split, by key of the batch."""
        companions = {}
        validated = (folder, split) in map(self._place, self.cfg.valid_subset.split(","))
        if self.cfg.valid_beam and validated:
            path = find_text(folder, split, self.cfg.target_lang)
            companions["references"] = References(path)
        training = split == self.cfg.train_subset
        if self.teacher_cache and (training or validated):
            targets = self.teacher_cache.targets(folder, split, self.tgt_dict.pad(), training)
            if targets is not None:
                companions[TEACHER] = targets
        if self.candidates:
            companions.update(
                self.candidates.beside(
                    folder, split, self.tgt_dict, self.cfg.left_pad_target,
                    self.cfg.max_target_positions,
                )
            )  # fmt: skip
        return companions

    def _training_mixture(self, epoch, combine):
        folders = [folder for folder, _ in self.training_folders()]
        loaded = [self._prepared(folder, self.cfg.train_subset, combine) for folder in folders]
        lengths = [len(dataset) for dataset in loaded]
        weights = self.weights(lengths)
        for folder, weight, length, shown in zip(
            folders, weights, lengths, pairs_in_pass(weights, lengths), strict=True
        ):
            logger.info(
                f"{folder}: {length:,} training pairs, weight {weight:g}, "
                f"{shown:,} pairs in a pass"
            )
        if self.teacher_cache:
            self.teacher_cache.check_all_used()
        if self.candidates:
            self.candidates.check_all_used()
        slices = self.slices([dataset.sizes for dataset in loaded], weights)
        sampling = self.cfg.source_sampling
        if weights == [1] and slices == 1 and not sampling:
            return loaded[0]
        mixture = MixtureDataset(loaded, weights, slices, self.cfg.seed)
        if sampling:
            mixture = SampledSources(
                mixture, piece_sampler(self.source_subwords, sampling, self.src_dict),
                self.src_dict, self.cfg.seed, self.cfg.max_source_positions,
                [len(self.tag_ids(folder)) for folder in folders],
            )  # fmt: skip
        mixture.set_epoch(epoch)
        return mixture

    def weights(self, lengths):
        """How often a pass shows each training bitext, from the numbers of their pairs."""
        return tempered([w for _, w in self.bitexts], lengths, self.cfg.mixture_temperature)

    def check_epoch_fraction(self):
        slices_per_pass(self.cfg.epoch_fraction)

    def slices(self, sizes, weights):
        """Number of fairseq epochs in a pass over training bitexts with these sizes."""
        return slices_per_pass(self.cfg.epoch_fraction)

    def get_batch_iterator(self, dataset, *args, **kwargs):
        # with any other multiple fairseq drops the last batch, so up to n-1 sentences
        kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def filter_indices_by_size(
        self, indices, dataset, max_positions=None, ignore_invalid_inputs=False
    ):
        if dataset is self.datasets.get(self.cfg.train_subset):
            return super().filter_indices_by_size(
                indices, dataset, max_positions, ignore_invalid_inputs
            )
        _, too_long = dataset.filter_indices_by_size(indices, max_positions)
        if len(too_long):
            raise ValueError(
                f"line {min(too_long) + 1} of the text to decode has {dataset.size(min(too_long))} "
                f"pieces (source, target), more than {max_positions}; nothing is skipped here: "
                f"shorten it, raise --max-source-positions, or decode with dad-generate"
            )
        return indices

    # -- validation ----------------------------------------------------------------------

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        self.network = model
        read_any_checkpoint(model)
        if not from_checkpoint:
            prepare_training(model, self.cfg, self._initial_teacher)
        if self.cfg.valid_beam:
            for name, beam in (("", self.cfg.valid_beam), ("_greedy", 1)):
                self._generators[name] = self.build_valid_generator(model, beam)
        return model

    def build_valid_generator(self, model, beam):
        """What decodes in validation."""
        settings = Namespace(
            beam=beam,
            lenpen=self.cfg.valid_length_penalty,
            # an untrained model never ends a sentence by itself
            max_len_a=MAX_LENGTH_RATIO,
            max_len_b=MAX_LENGTH_MARGIN,
        )
        return self.build_generator([model], settings)

    def begin_valid_epoch(self, epoch, model):
        super().begin_valid_epoch(epoch, model)
        self._validated_splits = []

    @once_per_batch()
    def valid_step(self, sample, model, criterion):
        """Loss of a batch, and the sums from which BLEU and chrF are computed."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if "references" not in sample:
            return loss, sample_size, logging_output
        logging_output["_decoded"] = len(sample["references"])
        for mode, generator in self._generators.items():
            hypotheses = self.decode(generator, sample, model)
            for name, metric in self._metrics.items():
                summed = statistics(metric, hypotheses, sample["references"])
                for number, value in enumerate(summed):
                    # separate numbers, so that fairseq can sum them over processes
                    logging_output[f"_{name}{mode}_{number}"] = value
        return loss, sample_size, logging_output

    def decode(self, generator, sample, model):
        """Detokenised best hypothesis of each sentence in a batch, a list of strings."""
        special = {self.tgt_dict.bos(), self.tgt_dict.pad(), self.tgt_dict.eos()}
        hypotheses = self.inference_step(generator, [model], sample, prefix_tokens=None)
        return [
            self.target_subwords.decode(
                [self.tgt_dict[i] for i in best["tokens"].tolist() if i not in special]
            )
            for best, *_ in hypotheses
        ]

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        sums = Counter()
        for output in logging_outputs:
            for key, value in output.items():
                if key.startswith("_"):
                    sums[key] += float(value)
        if "_decoded" not in sums:
            return
        fairseq_metrics.log_scalar("_decoded", sums["_decoded"])
        fairseq_metrics.log_derived("sentences", lambda meters: int(meters["_decoded"].sum))
        for mode in self._generators:
            for name, metric in self._metrics.items():
                key = f"{name}{mode}"
                numbers = sorted(int(k.rsplit("_", 1)[1]) for k in sums if _belongs(k, key))
                summed = np.array([sums[f"_{key}_{number}"] for number in numbers])
                fairseq_metrics.log_scalar(f"_{key}", summed)
                fairseq_metrics.log_derived(key, _derived_score(metric, f"_{key}"))

    def post_validate(self, model, stats, agg):
        """Stop the run if a sentence got lost on the way through validation."""
        splits = self.cfg.valid_subset.split(",")
        split = splits[len(self._validated_splits) % len(splits)]
        self._validated_splits.append(split)
        if "sentences" in stats and stats["sentences"] != len(self.datasets[split]):
            raise RuntimeError(
                f"validation decoded {stats['sentences']:,} of {len(self.datasets[split]):,} "
                f"sentences of {split}; scores would be wrong"
            )


def _belongs(key, name):
    return key.startswith(f"_{name}_") and key[len(name) + 2 :].isdigit()


def _derived_score(metric, key):
    return lambda meters: round(score(metric, meters[key].sum), 2)
