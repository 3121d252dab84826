"""Where a teacher's distribution over the target vocabulary comes from."""

# first, because it registers: a module of ours that is half imported could not be used
import fairseq  # noqa: F401
