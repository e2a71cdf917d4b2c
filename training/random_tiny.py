"""Writes ``models/tiny``: every part of a servable model, with seeded random weights.

    python -m training.random_tiny [FOLDER]

The networks have their final shapes and run the whole chain in real time on two CPU cores; what they show is noise
until they are trained. The same seed gives the same files, byte for byte.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind, RolloutConfig, TextConfig, TransformerConfig, VideoConfig
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.text import END_OF_TEXT, umt5_encoder
from engine.model.tiny_vae import TinyVae
from training.model_folder import Parts, Sizes, write_folder

SEED = 20260923
PICTURE_STD = 0.2
SPECIAL_TOKENS = ("<pad>", END_OF_TEXT, "<unk>")

TRANSFORMER = TransformerConfig(
    dim=192, ffn_dim=768, num_heads=4, num_layers=6, text_dim=128, text_len=256, freq_dim=128
)
ROLLOUT = RolloutConfig()
VIDEO = VideoConfig(sizes=((128, 128), (96, 96)), fps=16)
DECODER = DecoderConfig(kind=DecoderKind.TINY, widths=(64, 48, 32, 16))
TEXT = TextConfig(
    vocab_size=len(SPECIAL_TOKENS) + 256,
    dim=128,
    dim_attn=128,
    dim_ffn=256,
    num_heads=4,
    num_layers=2,
    num_buckets=32,
    text_len=256,
)
SIZES = Sizes(transformer=TRANSFORMER, rollout=ROLLOUT, video=VIDEO, decoder=DECODER, text=TEXT)
DESCRIPTION = "The small model that ships with the project. Its weights are seeded random: it shows noise."


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models/tiny"), help="default: models/tiny")
    write_model(parser.parse_args().folder)


def write_model(folder: Path) -> None:
    """Write all files of the model into ``folder``."""
    torch.manual_seed(SEED)
    transformer = CausalWan(TRANSFORMER)
    for name, parameter in transformer.named_parameters():
        if name.endswith("modulation"):
            nn.init.normal_(parameter, std=TRANSFORMER.dim**-0.5)
    decoder = visible_decoder()
    parts = Parts(transformer=transformer, decoder=decoder, text=umt5_encoder(TEXT), tokenizer=byte_tokenizer())
    training = {"weights": "random", "seed": SEED, "command": "python -m training.random_tiny"}
    write_folder(folder, parts, SIZES, DESCRIPTION, training, torch.bfloat16)


def visible_decoder() -> nn.Module:
    """A random decoder whose pictures are neither black nor flat: its last layer is scaled by what it puts out."""
    decoder = build_decoder(DECODER)
    assert isinstance(decoder, TinyVae)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    last = decoder.decoder[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        decoder.decode(torch.randn(6, DECODER.latent_channels, 16, 16), None)
        hook.remove()
        mean, std = seen[-1].mean(dim=(0, 2, 3)), seen[-1].std(dim=(0, 2, 3))
        last.weight *= (PICTURE_STD / std)[:, None, None, None]
        last.bias.copy_(0.5 - (mean - last.bias) * PICTURE_STD / std)
    return decoder


def byte_tokenizer() -> Tokenizer:
    """One token a byte of UTF-8, so that every prompt has tokens; ids 0..2 are padding, end and unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


if __name__ == "__main__":
    main()
