"""The general model as an anchor of the weights that are being adapted.

The anchor is no submodule and no buffer of whoever holds it: fairseq would otherwise
train it, save it in every checkpoint and hand it to distributed training.
"""

from pathlib import Path

import torch

from fairseq_plugins.checkpoints import weights_fingerprint
from fairseq_plugins.generation.models import open_model
from fairseq_plugins.losses import quadratic_penalty
from fairseq_plugins.teachers.fisher import read_fisher


class WeightAnchor:
    """Where the weights of a network are held, and how firmly each of them.

    Args:
        path: MODEL folder or fairseq checkpoint of the general model.
        task: ``SequenceDistillationTask``; names the vocabulary.
        l2: λ of the squared distance, the same for every weight.
        ewc_weight: λ of the squared distance times the Fisher information.
        fisher: file made by dad-estimate-fisher; needed by ``ewc_weight``.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: model or Fisher file are refused, or do not belong together.
    """

    def __init__(self, path, task, *, l2=0.0, ewc_weight=0.0, fisher=None):
        self.path = weights_file(path, task)
        self._weights = dict(task.check_checkpoint(self.path)["model"])
        self._l2, self._ewc_weight = l2, ewc_weight
        self._fisher = None
        if ewc_weight:
            fingerprint = weights_fingerprint(self._weights)
            self._fisher = read_fisher(fisher, self.path, fingerprint, task.vocabulary.files)
        self._held = None

    def penalty(self, network):
        """1/2 sum (λ_l2 + λ_ewc F_i) (θ_i - θ*_i)^2 over the trainable weights; nats, float32.

        Args:
            network: fairseq model, wrapped for distributed training or not.

        Raises:
            ValueError: the anchor is another network, see :meth:`check`.
        """
        while hasattr(network, "module"):
            network = network.module
        trainable = {n: weight for n, weight in network.named_parameters() if weight.requires_grad}
        if self._held is None or self._held.keys() != trainable.keys():
            self.check(network)
            self._held = {name: self._holding(name, weight) for name, weight in trainable.items()}
        anchors, importances = zip(*self._held.values(), strict=True)
        return quadratic_penalty(trainable.values(), anchors, importances)

    def check(self, network):
        """Refuse a network whose trainable weights are not all in the anchor, in the same shapes.

        Raises:
            ValueError: names the parameter.
        """
        network.upgrade_state_dict(self._weights)
        for name, weight in network.named_parameters():
            if not weight.requires_grad:
                continue
            if name not in self._weights:
                raise ValueError(
                    f"the model trains {name}, which the anchor {self.path} does not have, so "
                    f"its weights cannot be held there; hold its distribution instead "
                    f"(--anchor-weight), or take the anchor's architecture"
                )
            theirs, ours = tuple(self._weights[name].shape), tuple(weight.shape)
            if theirs != ours:
                raise ValueError(
                    f"{name} has shape {ours} in the model and {theirs} in the anchor {self.path}; "
                    f"take the anchor's architecture, or hold the distribution alone "
                    f"(--anchor-weight)"
                )
            if self._fisher is not None and name not in self._fisher:
                # the same weights, but tied otherwise
                raise ValueError(
                    f"the model trains {name}, for which --fisher has nothing; train with the "
                    f"--share-... flags of the general model"
                )

    def _holding(self, name, weight):
        """(anchor, importance) of a parameter, on its device."""
        # In the type of the weights, so that a half-precision model starts on its anchor and
        # not a rounding error away. Copied, because the file is mapped and may be written over.
        anchor = self._weights[name].to(weight.device, weight.dtype, copy=True)
        if self._fisher is None:
            return anchor, self._l2
        fisher = self._fisher[name].to(weight.device, torch.float32)
        return anchor, self._l2 + self._ewc_weight * fisher


def weights_file(path, task):
    """The checkpoint that a MODEL folder or the checkpoint itself stands for."""
    path = Path(path)
    if not path.is_dir():
        return path
    folder = open_model(path, trust=task.cfg.trust_checkpoint, allow_unknown_vocabulary=True)
    if folder.exported:
        raise ValueError(
            f"--anchor {path} is an exported model, which gives translations only; name the "
            f"MODEL folder it was made from"
        )
    return folder.weights
