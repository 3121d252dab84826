"""How a set of sentences is decoded, whatever decodes it: settings, batches, lengths."""

from dataclasses import dataclass

# Sentences of one class share a length limit, so the limit does not depend on who else is
# in the batch. fairseq and CTranslate2 know one limit per batch only.
LENGTH_CLASSES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class Decoding:
    """Settings of the search.

    Args:
        beam: hypotheses kept at each step, 1 is greedy.
        length_penalty: exponent of the length by which a score is divided.
        max_length: most pieces of a translation; None: see :meth:`length_limit`.
        batch_tokens: most source pieces in a batch, padding included.
    """

    beam: int = 5
    length_penalty: float = 1.0
    max_length: int | None = None
    batch_tokens: int = 1024

    def length_limit(self, pieces, positions):
        """Most pieces of a translation of ``pieces`` source pieces.

        Twice the source's class (8, 16, 32 ... pieces) and 10 more: at least
        2 × source + 10, at most what the model has positions for.
        """
        generous = 2 * length_class(pieces) + 10
        return min(self.max_length or generous, positions - 1)

    def batches(self, sentences):
        """Lists of indices into ``sentences`` (lists of pieces), longest first, alike in length.

        Every index comes once. A batch's sentences belong to one length class, and their
        padded size, end of sentence included, stays within ``batch_tokens`` unless a
        single sentence is longer.
        """
        batch, longest = [], 0
        for index in sorted(range(len(sentences)), key=lambda i: (-len(sentences[i]), i)):
            length = len(sentences[index])
            full = (len(batch) + 1) * (longest + 1) > self.batch_tokens
            if batch and (full or length_class(length) != length_class(longest)):
                yield batch
                batch = []
            if not batch:
                longest = length
            batch.append(index)
        if batch:
            yield batch


def length_class(pieces):
    """The smallest of ``LENGTH_CLASSES`` that holds that many pieces."""
    return next(bound for bound in LENGTH_CLASSES if pieces <= bound)
