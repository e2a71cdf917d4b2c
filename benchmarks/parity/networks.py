"""Decoder, encoder and text encoder against recorded numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.parity.cut import decoded_by
from benchmarks.parity.lines import Line, error_of
from engine.config import DecoderConfig, DecoderKind, TextConfig
from engine.model.vae import WanVae
from engine.model.weights import load_decoder

CPU = torch.device("cpu")
BLOCK_FRAMES = 3
"""Latent frames of a block."""
TEXT_KEYS = ("vocab_size", "dim", "dim_attn", "dim_ffn", "num_heads", "num_layers", "num_buckets", "text_len")


def compare_vae(folder: Path, config: dict[str, Any], decode_workers: Sequence[int]) -> Iterator[Line]:
    """The Wan VAE: one-shot decode, decode in blocks as the engine does, cut over workers, and encode."""
    decoder_config = DecoderConfig(
        kind=DecoderKind.WAN,
        latent_channels=config["z_dim"],
        dim=config["dim"],
        dim_mult=tuple(config["dim_mult"]),
        num_res_blocks=config["num_res_blocks"],
        temporal_downsample=tuple(config["temperal_downsample"]),
        latents_mean=tuple(config["latents_mean"]),
        latents_std=tuple(config["latents_std"]),
    )
    vae = load_decoder(decoder_config, folder / "vae.safetensors", CPU, with_encoder=True)
    assert isinstance(vae, WanVae)
    recorded = load_file(folder / "codec.safetensors")
    expected = recorded["decoded"]  # in [-1, 1]; ours is in [0, 1]
    yield Line("vae decode, one shot", {"pixels": error_of(vae.decode(recorded["latents"], None)[0] * 2 - 1, expected)})
    state, parts = None, []
    for block in recorded["latents"].split(BLOCK_FRAMES):
        pixels, state = vae.decode(block, state)
        parts.append(pixels * 2 - 1)
    yield Line("vae decode, block by block", {"pixels": error_of(torch.cat(parts), expected)})
    whole = torch.cat(parts)
    for count in decode_workers:
        cut = decoded_by(count, decoder_config, folder / "vae.safetensors", recorded["latents"]) * 2 - 1
        errors = {"pixels": error_of(cut, expected), "from one worker": error_of(cut, whole)}
        yield Line(f"vae decode, cut over {count} worker{'s' * (count > 1)}", errors)
    encoded = vae.encode((recorded["pixels"] + 1) / 2)
    yield Line("vae encode", {"latents": error_of(encoded, recorded["encoded"])})


def compare_text(folder: Path, config: dict[str, Any]) -> Iterator[Line]:
    """The text encoder at the true length of each prompt, padded with zeros as the model reads it."""
    from engine.model.text import load_encoder  # noqa: PLC0415 - takes seconds, and every worker imports this script

    text = TextConfig(**{key: config[key] for key in TEXT_KEYS})
    encoder = load_encoder(text, folder / "text_encoder.safetensors", CPU, torch.float32)
    recorded = load_file(folder / "encoding.safetensors")
    rows = zip(recorded["token_ids"], recorded["attention_mask"], recorded["embeddings"], strict=True)
    for index, (ids, mask, expected) in enumerate(rows):
        num_tokens = int(mask.sum())
        embedded = encoder(input_ids=ids[None, :num_tokens]).last_hidden_state[0]
        padded = torch.zeros_like(expected)
        padded[:num_tokens] = embedded
        yield Line(f"text embedding {index} ({num_tokens} tokens)", {"rows": error_of(padded, expected)})
