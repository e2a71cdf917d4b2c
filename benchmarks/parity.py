"""Compares this project with recorded numbers of the reference implementation.

    python -m benchmarks.parity tests/data/golden/public-a
    python -m benchmarks.parity tests/data/golden/public-a --workers 1,2,4,5

Any folder of the golden shapes will do; its kind is told by its files: a roll-out (``rollout.safetensors``), a VAE
(``codec.safetensors``) or a text encoder (``encoding.safetensors``). A roll-out runs through the oracle and through the
real engine: worker processes, tickets and pages; fused and separate; alone and beside other videos; in both orders;
on as many workers as asked. Workers beyond what a chain can use become further chains.
One line per quantity with its largest absolute error; exit status 0 only if all are within 1e-4.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine import Engine, EngineConfig, HiarError, Manifest, Output, Pace, PromptAt, VideoRequest
from engine.config import (
    LATENT_STRIDE_PX,
    DecoderConfig,
    DecoderKind,
    Order,
    RolloutConfig,
    TextConfig,
    TransformerConfig,
    VideoConfig,
)
from engine.law.schedule import frames_before_block
from engine.model.vae import WanVae
from engine.model.weights import load_decoder, load_transformer
from engine.oracle import roll_out
from engine.stage.noise import RecordedNoise

TOLERANCE = 1e-4
MAX_VIDEOS = 3
CPU = torch.device("cpu")
TRANSFORMER_KEYS = ("dim", "ffn_dim", "freq_dim", "text_dim", "text_len", "num_heads", "num_layers", "in_dim")
TEXT_KEYS = ("vocab_size", "dim", "dim_attn", "dim_ffn", "num_heads", "num_layers", "num_buckets", "text_len")


@dataclass(frozen=True)
class Line:
    """One compared quantity."""

    quantity: str
    max_abs_error: float

    @property
    def ok(self) -> bool:
        """Whether the error is a number within tolerance."""
        return self.max_abs_error <= TOLERANCE


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with config.json and recorded tensors")
    parser.add_argument("--workers", default="1", help="worker counts to run a roll-out on, as in 1,2,4 (default: 1)")
    arguments = parser.parse_args()
    all_ok = True
    try:
        for line in compare(arguments.folder, [int(count) for count in arguments.workers.split(",")]):
            all_ok &= line.ok
            print(f"{line.quantity:60s} {line.max_abs_error:.3e}  {'ok' if line.ok else 'TOO FAR'}", flush=True)
    except (HiarError, ValueError, OSError) as error:
        sys.exit(f"parity: {error}")
    print(f"{'all within' if all_ok else 'NOT within'} {TOLERANCE:g}")
    sys.exit(0 if all_ok else 1)


def compare(folder: Path, worker_counts: list[int]) -> Iterator[Line]:
    """Compare everything a folder records. Raises ``ValueError`` when its files tell no kind."""
    kinds: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
        "rollout.safetensors": lambda config: compare_rollout(folder, config, worker_counts),
        "codec.safetensors": lambda config: compare_vae(folder, config),
        "encoding.safetensors": lambda config: compare_text(folder, config),
    }
    found = [run for name, run in kinds.items() if (folder / name).is_file()]
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} of {', '.join(kinds)}; needed one")
    with torch.inference_mode():
        yield from found[0](json.loads((folder / "config.json").read_text()))


def compare_rollout(folder: Path, config: dict[str, Any], worker_counts: list[int]) -> Iterator[Line]:
    """Oracle, then engine, against a recorded roll-out."""
    manifest = rollout_manifest(folder, config)
    recorded = load_file(folder / "rollout.safetensors")
    per_block = manifest.rollout.latent_frames_per_block
    num_blocks = config["frames"] // per_block
    model = load_transformer(manifest.transformer, manifest.transformer_file, CPU)
    noise = RecordedNoise(folder / "rollout.safetensors", CPU)
    shape = (per_block, config["in_dim"], config["height"], config["width"])
    for order in Order:
        rollout = replace(manifest.rollout, order=order)
        result = roll_out(model, rollout, lambda b, s: noise(0, b, s, shape), recorded["context"], num_blocks)
        for quantity, parts in (("flow", result.flow), ("x0", result.x0)):
            for stage in range(rollout.num_stages):
                name = f"{order}.{quantity}.{stage}"
                if name in recorded:
                    ours = torch.cat([parts[stage, block] for block in range(num_blocks)])
                    yield Line(f"oracle {name}", error_of(ours, recorded[name]))
        ours = torch.cat([result.latents[block] for block in range(num_blocks)])
        yield Line(f"oracle {order}.latents", error_of(ours, recorded[f"{order}.latents"]))
    for num_workers in worker_counts:
        yield from compare_engine(folder, manifest, recorded, num_blocks, num_workers)


def compare_engine(
    folder: Path, manifest: Manifest, recorded: dict[str, Tensor], num_blocks: int, num_workers: int
) -> Iterator[Line]:
    """The engine in every way of running the same roll-out."""
    for order in Order:
        expected = recorded[f"{order}.latents"]
        ordered = replace(manifest, rollout=replace(manifest.rollout, order=order))
        for max_segments, fusion in ((1, "separate"), (2, "fused"), (2 * manifest.rollout.num_stages, "diagonal")):
            engine_config = EngineConfig(
                manifest=ordered,
                devices=("cpu",) * num_workers,
                max_videos=MAX_VIDEOS,
                max_segments=max_segments,
                max_inflight_blocks=manifest.rollout.num_stages + 2,
                poison_pages=True,
                recording_file=folder / "rollout.safetensors",
            )
            alone, together = asyncio.run(generate_latents(engine_config, num_blocks, expected.shape))
            name = f"engine {order}.latents {num_workers} worker(s) {fusion}"
            yield Line(f"{name} alone", error_of(alone, expected))
            yield Line(f"{name} {MAX_VIDEOS} videos", max(error_of(latents, expected) for latents in together))


async def generate_latents(config: EngineConfig, num_blocks: int, shape: torch.Size) -> tuple[Tensor, list[Tensor]]:
    """The latents of a video alone, then of several at once, each of ``shape``, from a real engine."""
    width_px, height_px = config.manifest.video.sizes[0]
    fps = config.manifest.video.fps
    request = VideoRequest(
        prompts=(PromptAt(at_s=0, text="recorded"),),
        width_px=width_px,
        height_px=height_px,
        fps=fps,
        seconds=frames_before_block(config.manifest.rollout, num_blocks) / fps,
        pace=Pace.FAST,
        output=Output.LATENTS,
    )
    engine = Engine(config)

    async def one_video() -> Tensor:
        video = await engine.open(request)
        data = b"".join([fragment.data async for fragment in video.read()])
        return torch.frombuffer(bytearray(data), dtype=torch.float32).view(shape)

    await engine.start()
    try:
        await engine.wait_ready()
        alone = await one_video()
        return alone, list(await asyncio.gather(*(one_video() for _ in range(MAX_VIDEOS))))
    finally:
        await engine.stop()


def compare_vae(folder: Path, config: dict[str, Any]) -> Iterator[Line]:
    """The Wan VAE: one-shot decode, decode in blocks as the engine does, and encode."""
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
    yield Line("vae decode, one shot", error_of(vae.decode(recorded["latents"], None)[0] * 2 - 1, expected))
    state, parts = None, []
    for block in recorded["latents"].split(3):
        pixels, state = vae.decode(block, state)
        parts.append(pixels * 2 - 1)
    yield Line("vae decode, block by block", error_of(torch.cat(parts), expected))
    yield Line("vae encode", error_of(vae.encode((recorded["pixels"] + 1) / 2), recorded["encoded"]))


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
        yield Line(f"text embedding {index} ({num_tokens} tokens)", error_of(padded, expected))


def rollout_manifest(folder: Path, config: dict[str, Any]) -> Manifest:
    """The recorded model as a servable one that stops at latents."""
    return Manifest(
        name=folder.name,
        transformer=TransformerConfig(**{key: config[key] for key in TRANSFORMER_KEYS}),
        rollout=RolloutConfig(
            denoising_steps=tuple(config["denoising_steps"]),
            timestep_shift=config["timestep_shift"],
            latent_frames_per_block=config["frames_per_block"],
            window_latent_frames=config["window_frames"],
            sink_latent_frames=config["sink_frames"],
            context_timestep=config["context_timestep"],
        ),
        video=VideoConfig(sizes=((config["width"] * LATENT_STRIDE_PX, config["height"] * LATENT_STRIDE_PX),), fps=16),
        transformer_file=folder / "transformer.safetensors",
    )


def error_of(ours: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; infinite when shapes differ, NaN when a number is."""
    if ours.shape != expected.shape:
        return float("inf")
    return float((ours.double() - expected.double()).abs().max())


if __name__ == "__main__":
    main()
