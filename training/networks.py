"""The sizes of the small model, and its fresh trainable parts. Knows no data and no loss."""

from torch import nn
from transformers import UMT5EncoderModel

from engine.config import RolloutConfig, TextConfig, TransformerConfig, VideoConfig
from engine.model.dit import CausalWan
from engine.model.text import umt5_encoder
from training.autoencoder import DECODER
from training.forward import trainable_wan

TEXT_LEN = 64
TRANSFORMER = TransformerConfig(
    dim=192,
    ffn_dim=768,
    num_heads=4,
    num_layers=6,
    text_dim=128,
    text_len=TEXT_LEN,
    freq_dim=128,
    in_dim=DECODER.latent_channels,
    patch_px=4,
    position_grid=(4, 4),
    position_frames=12,
    predicts_clean=True,
)
ROLLOUT = RolloutConfig(window_latent_frames=12, timestep_shift=3.0)
"""The student's blocks can tell how late they are while their window grows; later ones go on from what they see."""
WINDOW_BLOCKS = 4
"""Blocks of the teacher's windows: as many as the student's."""
TRAINED_BLOCKS = 8
"""Blocks of roll-outs: half of them cannot tell how late they are, as in endless videos."""
VIDEO = VideoConfig(sizes=((128, 128), (96, 96)), fps=16)
"""Training sees the first size only; the other is the same picture, smaller, with positions stretched to fit."""
TABLES = ("shared", "relative_attention_bias", "frame_embedding")
"""Names of two-dimensional weights that are tables."""


def text_config(vocab_size: int) -> TextConfig:
    """Sizes of the text encoder for a tokenizer."""
    return TextConfig(
        vocab_size=vocab_size,
        dim=TRANSFORMER.text_dim,
        dim_attn=128,
        dim_ffn=256,
        num_heads=4,
        num_layers=2,
        num_buckets=32,
        text_len=TEXT_LEN,
    )


class TextToFlow(nn.Module):
    """Transformer and text encoder, trained together."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.transformer: CausalWan = trainable_wan(TRANSFORMER)
        self.encoder: UMT5EncoderModel = umt5_encoder(text_config(vocab_size))
