"""Decode a corpus: every line in gives one line out, in order, resumable.

From Python::

    from fairseq_plugins.generation.generate import generate

    record = generate(["teacher/general"], "train.de", "train.en", beam=5)
"""
