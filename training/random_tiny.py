"""Writes ``models/tiny``: every part of a servable model, with seeded random weights.

    python -m training.random_tiny [FOLDER]

The networks have their final shapes and run the whole chain in real time on two CPU cores; what they show is noise
until they are trained. The same seed gives the same files, byte for byte.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from engine.config import DecoderConfig, DecoderKind, RolloutConfig, TextConfig, TransformerConfig, VideoConfig
from engine.model.decoder import build_decoder
from engine.model.dit import CausalWan
from engine.model.text import END_OF_TEXT, umt5_encoder

SEED = 20260923
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
FILES = {
    "transformer": "transformer.safetensors",
    "decoder": "decoder.safetensors",
    "text": "text_encoder.safetensors",
    "tokenizer": "tokenizer.json",
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models/tiny"), help="default: models/tiny")
    write_model(parser.parse_args().folder)


def write_model(folder: Path) -> None:
    """Write all files of the model into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    transformer = CausalWan(TRANSFORMER)
    for name, parameter in transformer.named_parameters():
        if name.endswith("modulation"):
            nn.init.normal_(parameter, std=TRANSFORMER.dim**-0.5)
    _save(transformer, folder / FILES["transformer"])
    _save(build_decoder(DECODER), folder / FILES["decoder"])
    _save(umt5_encoder(TEXT), folder / FILES["text"])
    byte_tokenizer().save(str(folder / FILES["tokenizer"]))
    (folder / "manifest.json").write_text(json.dumps(manifest(), indent=2) + "\n")


def manifest() -> dict[str, Any]:
    """What ``engine.manifest`` reads."""
    return {
        "name": "tiny",
        "description": "The small model that ships with the project. Its weights are seeded random: it shows noise.",
        "files": FILES,
        "transformer": dataclasses.asdict(TRANSFORMER),
        "rollout": dataclasses.asdict(ROLLOUT),
        "video": dataclasses.asdict(VIDEO),
        "decoder": {"kind": DECODER.kind, "latent_channels": DECODER.latent_channels, "widths": DECODER.widths},
        "text": dataclasses.asdict(TEXT),
        "training": {"weights": "random", "seed": SEED, "command": "python -m training.random_tiny"},
    }


def byte_tokenizer() -> Tokenizer:
    """One token a byte of UTF-8, so that every prompt has tokens; ids 0..2 are padding, end and unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _save(module: nn.Module, path: Path) -> None:
    """Write the weights as bfloat16; a tied tensor is written once."""
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in module.state_dict().items()}
    tensors.pop("encoder.embed_tokens.weight", None)
    save_file(tensors, path)


if __name__ == "__main__":
    main()
