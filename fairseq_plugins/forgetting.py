"""What a model forgets of the general domain while it is adapted, and when that is too much."""

import math


class GeneralScore:
    """BLEU on a general-domain dev set during an adaptation, against that of the start model.

    Args:
        floor: BLEU points that may be lost; None: no limit.
        text: SHA-256 of the dev set, source and target.
    """

    def __init__(self, floor, text):
        self._floor = floor
        self._text = text
        self.start = None  # BLEU before the first update
        self.last = None  # BLEU in the last validation

    @property
    def lost(self):
        """BLEU points lost since the start, so far as it is known."""
        known = self.start is not None and self.last is not None
        return self.start - self.last if known else 0.0

    @property
    def below_floor(self):
        return self._floor is not None and self.lost > self._floor

    def reason_to_stop(self):
        """Why the training ends here, or None if it goes on."""
        if not self.below_floor:
            return None
        return (
            f"with general-domain BLEU at {self.last:.2f}, {self.lost:.2f} below that of the start "
            f"model ({self.start:.2f}); --general-floor allows {self._floor:g}"
        )

    def state_dict(self):
        return {"text": self._text, "start": self.start, "last": self.last}

    def restore(self, saved, path):
        """Take over what :meth:`state_dict` gave in an earlier run of this training.

        Args:
            saved: the state, or None if that run did not watch the general domain.
            path: the checkpoint it is from, for messages.

        Raises:
            ValueError: the scores of that run and of this one do not compare.
        """
        if not saved or saved["start"] is None:
            raise ValueError(
                f"{path} is from a run without --general-valid, so the general-domain BLEU of its "
                "start model is unknown; go on without it, or adapt anew in another --save-dir"
            )
        if saved["text"] != self._text:
            raise ValueError(
                f"{path} is from a run with another --general-valid text, and its scores do not "
                "compare; name the same folder, or adapt anew in another --save-dir"
            )
        self.start, self.last = saved["start"], saved["last"]


def refuse(stats, metric, maximize, best):
    """Make a validation worse than any other in fairseq's eyes, so that it is never the best.

    Args:
        stats: what fairseq has measured in this validation, altered in place; the true value of
            ``metric`` is kept as ``refused_<metric>``.
        metric, maximize: how the best checkpoint is chosen.
        best: best value so far, or None.
    """
    stats[f"refused_{metric}"] = stats[metric]
    if best is None:
        # not even itself is as good as this: fairseq saves the first validation as the best
        stats[metric] = math.nan
    else:
        stats[metric] = -math.inf if maximize else math.inf
        stats[f"best_{metric}"] = best
