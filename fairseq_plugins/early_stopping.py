"""fairseq's early stopping, which forgets on resume what it has counted."""

import math
import sys


def patience():
    """What fairseq's early stopping has counted so far, or None outside training.

    fairseq keeps it on a function, ``should_stop_early``, and forgets it on resume.
    """
    counter = _early_stopping()
    if counter is None or not hasattr(counter, "best"):
        return None
    return {"best": float(counter.best), "num_runs": int(counter.num_runs)}


def restore_patience(saved):
    """Give fairseq's early stopping back what :func:`patience` saved."""
    counter = _early_stopping()
    # NaN: the only validation so far was refused, see fairseq_plugins.forgetting
    if counter is not None and saved and not math.isnan(saved["best"]):
        counter.best, counter.num_runs = saved["best"], saved["num_runs"]


def reason_to_stop(updates, saved_patience, max_update, patience):
    """Why a training that was saved in this state had ended, or None if it had not.

    fairseq itself asks only after another update, so a training that was killed after its
    last checkpoint would come out one update, or one validation, longer.

    Args:
        updates: updates done.
        saved_patience: what :func:`patience` saved.
        max_update, patience: fairseq's settings; 0 is without end.
    """
    if 0 < max_update <= updates:
        return f"with {updates:,} of {max_update:,} updates"
    waited = (saved_patience or {}).get("num_runs", 0)
    if 0 < patience <= waited:
        return f"with {waited} validations without improvement (--patience {patience})"
    return None


def _early_stopping():
    return getattr(sys.modules.get("fairseq_cli.train"), "should_stop_early", None)
