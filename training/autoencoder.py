"""Trains the small video autoencoder on pictures of the world.

    python -m training.autoencoder
    python -m training.autoencoder --folder build/training/autoencoder --steps 4000
    python -m training.autoencoder --decoder-only --start build/training/autoencoder --folder build/training/decoder

The decoder is the product's tiny decoder; the encoder is needed in training only. A latent frame stands for 4 frames
and no latent frame is special: the first of a stream stands for its first picture and the 3 frames before it, which
the world has and the decoder drops. Latents have zero mean and unit variance in every channel, and noise is added to
them, so that near latents mean near pictures. ``--decoder-only``
goes on with a decoder while its encoder, and so all latents made with it, stay as they are.

Letters: B clips, T frames or latent frames of a clip, C channels, Y and X latent height and width, H and W height and
width in pixels.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import LATENT_STRIDE_PX, DecoderConfig, DecoderKind
from engine.model.decoder import store_channels_last
from engine.model.tiny_vae import RGB, STRIDE, MemoryBlock, TinyVae, channels_last
from training.pictures import save_rows
from training.render import render
from training.run import Average, Optimizers, Run, add_arguments, latest_part, rate_factor, set_up
from training.world import Split, draw_scene

DECODER = DecoderConfig(kind=DecoderKind.TINY, latent_channels=12, widths=(64, 48, 32, 16))
SIZE_PX = 128
ENCODER_WIDTH = 192
ENCODER_BLOCKS = 4
NOISE_STD_MAX = 0.2
STATISTICS_WEIGHT = 0.02
"""Of a step in the latents' running mean and variance."""
LATENT_SOFT_LIMIT = 2.2
"""Latents beyond this are drawn back: the decoder squeezes what comes near 3."""
CROP_PX, CROP_LATENTS, CROPS = 64, 4, 12
"""Most steps: small pieces of many clips."""
WHOLE_LATENTS, WHOLES, WHOLE_EVERY = 9, 2, 8
"""The other steps: whole pictures, longer than the decoder remembers."""
LOG_EVERY, CHECK_EVERY = 20, 250
CHECK_SCENES, CHECK_LATENTS = 8, 7


class ClipEncoder(nn.Module):
    """From frames to normalised latents; every latent frame depends on its own 4 frames alone."""

    def __init__(self, latent_channels: int, width: int = ENCODER_WIDTH, num_blocks: int = ENCODER_BLOCKS) -> None:
        super().__init__()
        self.enter = nn.Conv2d(STRIDE * RGB * LATENT_STRIDE_PX**2, width, 1)
        self.blocks = nn.ModuleList(_Residual(width) for _ in range(num_blocks))
        self.leave = nn.Conv2d(width, latent_channels, 1)
        self.normalise = _Normalise(latent_channels)

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        """``frames_BTCHW``: RGB in [0, 1], a multiple of 4. Returns [B, T / 4, C, Y, X]."""
        groups = frames_BTCHW.unflatten(1, (-1, STRIDE)).flatten(0, 1)
        cut = functional.pixel_unshuffle(groups.flatten(1, 2) * 2 - 1, LATENT_STRIDE_PX)
        x = self.enter(channels_last(cut))
        for block in self.blocks:
            x = block(x)
        latents: Tensor = self.normalise(self.leave(x).float())
        by_clip: Tensor = latents.unflatten(0, (len(frames_BTCHW), -1))
        return by_clip


class _Normalise(nn.Module):
    """Give every channel zero mean and unit variance over the data, by running statistics.

    Those of the batch would not do: a few clips have a few backgrounds, and hardly any two batches look alike.
    """

    mean: Tensor
    square: Tensor
    num_updates: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("square", torch.ones(channels, 1, 1))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Normalise; in training the statistics move first, and no gradient flows through them."""
        if self.training:
            self._follow(x_BCYX.detach())
        return (x_BCYX - self.mean) * torch.rsqrt(self.square - self.mean.square() + 1e-5)

    def _follow(self, x_BCYX: Tensor) -> None:
        self.num_updates += 1
        weight = max(STATISTICS_WEIGHT, 1 / int(self.num_updates))
        for kept, value in ((self.mean, x_BCYX), (self.square, x_BCYX.square())):
            kept.lerp_(value.mean((0, 2, 3))[:, None, None], weight)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(functional.silu(self.first(functional.silu(x))))
        return out


class Autoencoder(nn.Module):
    """Encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ClipEncoder(DECODER.latent_channels)
        self.decoder = TinyVae(DECODER, with_encoder=False)
        for layer in self.decoder.modules():
            if isinstance(layer, MemoryBlock):
                last = layer.conv[-1]
                assert isinstance(last, nn.Conv2d)
                nn.init.zeros_(last.weight)
        store_channels_last(self)


def decode_clips(decoder: TinyVae, latents_BTCYX: Tensor) -> Tensor:
    """What ``TinyVae.decode`` makes of many streams' starts at once, differentiable and not yet clamped."""
    num_clips = len(latents_BTCYX)
    x = channels_last(latents_BTCYX.flatten(0, 1))
    for layer in decoder.decoder:
        if isinstance(layer, MemoryBlock):
            by_clip = x.unflatten(0, (num_clips, -1))
            past = torch.cat([torch.zeros_like(by_clip[:, :1]), by_clip[:, :-1]], 1).flatten(0, 1)
            x = layer.conv(channels_last(torch.cat([x, past], dim=1))).add_(x).relu_()
        else:
            x = layer(x)
    decoded: Tensor = x.float().unflatten(0, (num_clips, -1))[:, STRIDE - 1 :]
    return decoded


def main() -> None:
    """Command line."""
    args = _parse()
    device = set_up(args)
    network = Autoencoder().to(device)
    if args.start is not None:
        network.load_state_dict(latest_part(args.start, "average", prefix="module."))
    network.encoder.requires_grad_(not args.decoder_only)
    trained = network.decoder if args.decoder_only else network
    average, optimizers = Average(network, 0.998), Optimizers(trained, args.rate)
    run = Run(args.folder, {"network": network, "average": average, "optimizers": optimizers}, args.seed)
    network.encoder.train(not args.decoder_only)
    for step in run.steps(args.steps):
        run.seed_torch()
        values = _train(network, draw_clips(run.rng(), whole=step % WHOLE_EVERY == 0).to(device))
        values["gradient"] = optimizers.step(rate_factor(step, args.steps))
        average.update(network)
        if step % LOG_EVERY == 0:
            run.log(**values)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == args.steps:
            run.log(**check(average.module, args.folder))


def draw_clips(rng: np.random.Generator, *, whole: bool) -> Tensor:
    """Clips of random training scenes at random moments: RGB in [0, 1], [B, T, 3, H, W], T a multiple of 4."""
    num_clips, num_latents, size_px = (WHOLES, WHOLE_LATENTS, SIZE_PX) if whole else (CROPS, CROP_LATENTS, CROP_PX)
    clips = []
    for _ in range(num_clips):
        frames = render(draw_scene(rng), int(rng.integers(10_000)), STRIDE * num_latents, SIZE_PX)
        top, left = rng.integers(0, SIZE_PX - size_px + 1, size=2)
        clips.append(frames[:, top : top + size_px, left : left + size_px])
    return to_pixels(np.stack(clips))


def to_pixels(frames: np.ndarray) -> Tensor:
    """From uint8 [..., H, W, 3] to float [..., 3, H, W] in [0, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 255


def _train(network: Autoencoder, pixels_BTCHW: Tensor) -> dict[str, float]:
    with torch.autocast(pixels_BTCHW.device.type, torch.bfloat16):
        latents = network.encoder(pixels_BTCHW)
        std = torch.rand(len(latents), 1, 1, 1, 1, device=latents.device) * NOISE_STD_MAX
        decoded = decode_clips(network.decoder, latents + std * torch.randn_like(latents))
    difference = decoded - pixels_BTCHW[:, STRIDE - 1 :]
    absolute, squared = difference.abs().mean(), difference.square().mean()
    edges = sum(difference.diff(dim=axis).abs().mean() for axis in (-1, -2))
    tails = functional.relu(latents.abs() - LATENT_SOFT_LIMIT).square().mean()
    (absolute + 2 * squared + edges + 0.5 * tails).backward()
    return {"absolute": absolute.item(), "psnr_training": _psnr(squared), "tails": tails.item()}


@torch.inference_mode()
def check(network: nn.Module, folder: Path) -> dict[str, float]:
    """Reconstruct held-out scenes, clean and with noise on the latents, and save both beside the originals."""
    assert isinstance(network, Autoencoder)
    device = next(network.parameters()).device
    network.eval()
    rng = np.random.default_rng(1)
    scenes = [draw_scene(rng, Split.HELD_OUT) for _ in range(CHECK_SCENES)]
    pixels = to_pixels(np.stack([render(scene, 100, STRIDE * CHECK_LATENTS) for scene in scenes]))
    latents = network.encoder(pixels.to(device))
    pixels = pixels[:, STRIDE - 1 :]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).to(device)
    clean, noisy = (
        torch.stack([network.decoder.decode(clip, None)[0] for clip in clips]).cpu()
        for clips in (latents, latents + 0.1 * noise)
    )
    picked = [0, 1, 8, 16, 24]
    rows = [torch.cat([kind[scene, picked] for kind in (pixels, clean, noisy)]) for scene in range(CHECK_SCENES)]
    save_rows(folder / "reconstructions.png", [("", row) for row in rows])
    squared = (clean - pixels).square().mean((1, 2, 3, 4))
    return {
        "psnr": _psnr(squared.mean()),
        "psnr_worst": _psnr(squared.max()),
        "psnr_noise_0.1": _psnr((noisy - pixels).square().mean()),
        "latent_std": float(latents.std()),
        "latent_max": float(latents.abs().max()),
    }


def _psnr(squared: Tensor) -> float:
    return float(-10 * squared.detach().log10())


def load_autoencoder(folder: Path, device: torch.device) -> Autoencoder:
    """The averaged network of a run, ready to encode. Raises ``FileNotFoundError``."""
    network = Autoencoder()
    network.load_state_dict(latest_part(folder, "average", prefix="module."))
    return network.to(device).eval().requires_grad_(False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "autoencoder", steps=2000)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate (%(default)s)")
    parser.add_argument("--start", type=Path, help="run folder whose weights to start from")
    parser.add_argument("--decoder-only", action="store_true", help="keep the encoder of --start as it is")
    args = parser.parse_args()
    if args.decoder_only and args.start is None:
        parser.error("--decoder-only needs --start")
    return args


if __name__ == "__main__":
    main()
