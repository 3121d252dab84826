"""What a model is trained on: mixtures of bitexts, and what goes beside their sentence pairs."""

# first, because it registers: a module of ours that is half imported could not be used
import fairseq  # noqa: F401
