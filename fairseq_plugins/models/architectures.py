"""Architectures ``dad_small`` and so on: the shapes of ``sizes`` for fairseq's ``transformer``.

A flag that the user gives wins over the shape: ``--arch dad_small --encoder-layers 4``.
"""

from fairseq.models import register_model_architecture
from fairseq.models.transformer import base_architecture

from data_prep.model_sizes import PREFIX, SIZES


def _architecture(size):
    def architecture(args):
        """Fill in what ``args`` leaves open; the decoder follows the encoder's width."""
        args.share_all_embeddings = getattr(args, "share_all_embeddings", True)
        args.encoder_normalize_before = getattr(args, "encoder_normalize_before", True)
        args.decoder_normalize_before = getattr(args, "decoder_normalize_before", True)
        args.encoder_layers = getattr(args, "encoder_layers", size.encoder_layers)
        args.decoder_layers = getattr(args, "decoder_layers", size.decoder_layers)
        args.encoder_embed_dim = getattr(args, "encoder_embed_dim", size.width)
        args.encoder_ffn_embed_dim = getattr(args, "encoder_ffn_embed_dim", size.ffn)
        args.encoder_attention_heads = getattr(args, "encoder_attention_heads", size.heads)
        args.decoder_attention_heads = getattr(
            args, "decoder_attention_heads", args.encoder_attention_heads
        )
        base_architecture(args)  # which takes width and feed-forward width from the encoder

    return architecture


for _name, _size in SIZES.items():
    register_model_architecture("transformer", PREFIX + _name)(_architecture(_size))
