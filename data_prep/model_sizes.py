"""Shapes of the registered architectures, and how many parameters they have. Needs no torch.

- ``large``, ``medium``, ``small``, ``tiny``: Gordon & Duh (2020), https://arxiv.org/abs/2003.02877
- ``tiny_6_1``, ``small_12_1``, ``medium_12_1``: the same widths with a deep encoder and a decoder
  of one layer, which is what decoding waits for: Kasai et al. (2021),
  https://arxiv.org/abs/2006.10369, whose own 12-1 has the width of ``medium``.
- ``l4_w256`` and so on: the grid of Turc et al. (2019), https://arxiv.org/abs/1908.08962, for
  which they made BERT models: depths 2 to 12, widths 128 to 768, a head for every 64 dimensions,
  feed-forward width four times the width. Encoder and decoder have that depth each.
- the two miniatures are for demonstrations on a CPU.

In all of them the embeddings of source, target and output are one matrix, unlike the paper's:
with untied ones a tiny student is mostly embeddings. Layers are pre-norm, which train without
a long warm-up.
"""

from typing import NamedTuple

PREFIX = "dad_"  # architecture = prefix + size

DEPTHS = (2, 4, 6, 8, 10, 12)
WIDTHS = (128, 256, 512, 768)


class Size(NamedTuple):
    encoder_layers: int
    decoder_layers: int
    width: int
    ffn: int
    heads: int


SIZES = {
    "large": Size(6, 6, 512, 2048, 8),
    "medium": Size(3, 3, 512, 2048, 8),
    "small": Size(3, 3, 256, 1024, 8),
    "tiny": Size(1, 1, 256, 1024, 8),
    "medium_12_1": Size(12, 1, 512, 2048, 8),
    "small_12_1": Size(12, 1, 256, 1024, 8),
    "tiny_6_1": Size(6, 1, 256, 1024, 8),
    "miniature_teacher": Size(2, 2, 256, 1024, 4),
    "miniature": Size(1, 1, 96, 384, 4),
    **{
        f"l{depth}_w{width}": Size(depth, depth, width, 4 * width, width // 64)
        for depth in DEPTHS
        for width in WIDTHS
    },
}


def parameter_count(arch, vocabulary_size):
    """Number of parameters of an architecture, and those of its embeddings apart.

    Args:
        arch: name such as ``dad_small``.
        vocabulary_size: entries of the joint dictionary, the four special ones included.

    Returns:
        dictionary: parameters (all), embedding_parameters.

    Raises:
        ValueError: the architecture is unknown.
    """
    size = SIZES.get(arch.removeprefix(PREFIX)) if arch.startswith(PREFIX) else None
    if size is None:
        names = ", ".join(PREFIX + name for name in SIZES)
        raise ValueError(f"architecture {arch!r} is unknown; there are {names}")
    width, ffn = size.width, size.ffn
    attention = 4 * (width * width + width)
    feed_forward = 2 * width * ffn + ffn + width
    norm = 2 * width
    encoder = size.encoder_layers * (attention + feed_forward + 2 * norm) + norm
    decoder = size.decoder_layers * (2 * attention + feed_forward + 3 * norm) + norm
    embeddings = vocabulary_size * width  # positions are sinusoids, which are not learnt
    return {
        "parameters": embeddings + encoder + decoder,
        "embedding_parameters": embeddings,
    }
