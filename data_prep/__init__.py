"""The text side of the house: corpora in, prepared folders out, and the bookkeeping of stages.

No torch and no fairseq in here: these commands start in a fraction of a second.
"""
