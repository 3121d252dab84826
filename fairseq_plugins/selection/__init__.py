"""Choose what the student learns: from candidates and references to a text folder, with a ledger.

From Python::

    from fairseq_plugins.selection.select import select

    ledger = select(
        "train.de", "train.en.nbest", "selected", ("de", "en"),
        steps=["mbr:metric=chrf", "repetition:max=4", "copy"],
        references="train.en", rejected="reference", mix={"references": 0.5},
    )
"""
