"""Names of weights chosen by words such as ``encoder`` or by regular expressions."""

import re

# words for what is often meant; what is no word is a regular expression
GROUPS = {
    "embeddings": r"embed_tokens|embed_positions|layernorm_embedding",
    "encoder": r"^encoder\.(?!embed_|layernorm_embedding)",
    "decoder": r"^decoder\.(?!embed_|layernorm_embedding|output_projection)",
    "output": r"^decoder\.output_projection",
    "attention": r"(self|encoder)_attn\.",
    "ffn": r"\.fc[12]\.",
    "norms": r"layer_?norm",
}


def choose(text, names, flag):
    """The names that at least one of some patterns fits, in the order of ``names``.

    Args:
        text: patterns, separated by commas: words of ``GROUPS``, or regular expressions
            that fit anywhere in a name (``^`` and ``$`` hold them to its ends).
        names: such as ``encoder.layers.0.fc1.weight``.
        flag: named in messages.

    Raises:
        ValueError: a pattern is no regular expression or fits nothing.
    """
    chosen = set()
    for pattern in (part.strip() for part in text.split(",")):
        try:
            expression = re.compile(GROUPS.get(pattern, pattern))
        except re.error as error:
            raise ValueError(
                f"{flag} {pattern!r} is neither one of {', '.join(GROUPS)} nor a regular "
                f"expression: {error}"
            ) from None
        fitting = [name for name in names if expression.search(name)]
        if not pattern or not fitting:
            raise ValueError(
                f"{flag} {pattern!r} fits none of the weights; there are {_in_short(names)}; "
                f"words for many of them are {', '.join(GROUPS)}"
            )
        chosen.update(fitting)
    return [name for name in names if name in chosen]


def _in_short(names):
    """The names once for all layers, which have a number."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in names))
