"""Fits the small video autoencoder to pictures of the world.

    python -m training.autoencoder
    python -m training.autoencoder --folder build/training/autoencoder --steps 4000
    python -m training.autoencoder --start build/training/autoencoder --folder build/training/decoder

The encoder is linear and fitted in seconds: the principal components of what 4 frames show in 8 x 8 pixels, each
scaled to the same range. So latents are close to small pictures: near latents mean near pictures, a colour is the same
wherever it is, and whoever fits the encoder again gets the same latents. The decoder, the product's tiny decoder, is
trained to draw from them what the components leave out. The encoder is a file of its own in the model folder: videos
that start from a picture need it. A latent frame stands for 4 frames and no latent frame is special: the first of a
stream stands for its first picture and the 3 frames before it, which the world has and the decoder drops. Noise is
added to latents, so that the decoder bears what a student leaves of it. ``--start`` goes on with the decoder of another
run and keeps its encoder.

Letters: B clips, T frames or latent frames of a clip, C channels, Y and X latent height and width, H and W height and
width in pixels, P values of a patch.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import DecoderConfig, DecoderKind
from engine.model.decoder import store_channels_last
from engine.model.patch_encoder import PatchEncoder, patches
from engine.model.tiny_vae import STRIDE, MemoryBlock, TinyVae, channels_last, decoder_layers
from training.pictures import save_rows
from training.render import render
from training.run import Average, Optimizers, Run, add_arguments, latest_part, precision, rate_factor, set_up
from training.world import Split, draw_scene, state

DECODER = DecoderConfig(kind=DecoderKind.TINY, latent_channels=12, widths=(64, 48, 32, 16))
SIZE_PX = 128
VIDEO_FPS = 16
FITTED_SCENES = 700
"""Scenes whose patches the components are of; a seed of its own draws them."""
FITTED_SEED = 20261128
LATENT_RANGE, RANGE_QUANTILE = 3.5, 0.999
"""Nearly all latents of a channel lie within this range; the decoder squeezes what is far beyond 3."""
NOISE_STD_MAX = 0.15
CROP_PX, CROP_LATENTS, CROPS = 64, 4, 6
"""Most steps: small pieces of many clips."""
WHOLE_LATENTS, WHOLES, WHOLE_EVERY = 7, 1, 8
"""The other steps: whole pictures, longer than the decoder remembers."""
CHANGE_WEIGHT = 2.0
"""What errors of the change from frame to frame count: where frames are judged one by one, each latent frame is drawn a
little differently from the last, and what stands still shimmers."""
LAST_LAYER = (f"decoder.decoder.{len(decoder_layers(DECODER.latent_channels, DECODER.widths)) - 1}.",)
"""Makes colours, so its rows mean something each: AdamW's."""
LOG_EVERY, CHECK_EVERY = 20, 250
CHECK_SCENES, CHECK_LATENTS = 8, 7


@torch.no_grad()
def fit(encoder: PatchEncoder, clips_BTCHW: Tensor) -> None:
    """Take the components of these clips. Each points where its values are brighter, so signs are fixed too."""
    patches_NP = 2 * patches(clips_BTCHW).flatten(0, -2).double() - 1
    mean_P = patches_NP.mean(0)
    centred_NP = patches_NP - mean_P
    _, vectors_PP = torch.linalg.eigh(centred_NP.T @ centred_NP)
    components_CP = vectors_PP.T.flip(0)[: len(encoder.components)]
    largest_C1 = components_CP.abs().argmax(1, keepdim=True)
    components_CP = components_CP * components_CP.gather(1, largest_C1).sign()
    values_NC = (centred_NP @ components_CP.T).abs()
    ordinal = math.ceil(RANGE_QUANTILE * len(values_NC))
    range_C = values_NC.kthvalue(ordinal, dim=0).values
    encoder.mean.copy_(mean_P)
    encoder.components.copy_(components_CP * (LATENT_RANGE / range_C)[:, None])


class Autoencoder(nn.Module):
    """Encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = PatchEncoder(DECODER.latent_channels)
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
    average, optimizers = Average(network, 0.998), Optimizers(network, args.rate, tables=LAST_LAYER)
    run = Run(args.folder, {"network": network, "average": average, "optimizers": optimizers}, args.seed)
    if run.step == 0:
        _begin(network, average, args.start)
    for step in run.steps(args.steps):
        run.seed_torch()
        values = _train(network, draw_clips(run.rng(), whole=step % WHOLE_EVERY == 0).to(device))
        values["gradient"] = optimizers.step(rate_factor(step, args.steps))
        average.update(network)
        if step % LOG_EVERY == 0:
            run.log(**values)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == args.steps:
            run.log(**check(average.module, args.folder))


def _begin(network: Autoencoder, average: Average, start: Path | None) -> None:
    """Fit the encoder, or take both sides from another run."""
    if start is None:
        fit(network.encoder, fitted_clips().to(network.encoder.mean.device))
    else:
        network.load_state_dict(latest_part(start, "average", prefix="module."))
    average.module.load_state_dict(network.state_dict())


def fitted_clips() -> Tensor:
    """4 frames of each of many scenes, at any moment."""
    rng = np.random.default_rng(FITTED_SEED)
    return to_pixels(
        np.stack([render(draw_scene(rng), int(rng.integers(10_000)), STRIDE, SIZE_PX) for _ in range(FITTED_SCENES)])
    )


def draw_clips(rng: np.random.Generator, *, whole: bool) -> Tensor:
    """Clips of random training scenes at random moments: RGB in [0, 1], [B, T, 3, H, W], T a multiple of 4.

    Pieces are cut out around a thing: what is to be learned is at its edges.
    """
    num_clips, num_latents, size_px = (WHOLES, WHOLE_LATENTS, SIZE_PX) if whole else (CROPS, CROP_LATENTS, CROP_PX)
    clips = []
    for _ in range(num_clips):
        scene, first = draw_scene(rng), int(rng.integers(10_000))
        frames = render(scene, first, STRIDE * num_latents, SIZE_PX)
        things = state(scene, (first + STRIDE * num_latents // 2) / VIDEO_FPS)
        thing = things[int(rng.integers(len(things)))]
        left, top = (_corner(rng, place, size_px) for place in (thing.x, thing.y))
        clips.append(frames[:, top : top + size_px, left : left + size_px])
    return to_pixels(np.stack(clips))


def _corner(rng: np.random.Generator, place: float, size_px: int) -> int:
    """Where a piece begins, so that ``place`` is somewhere in it, if it is in the picture at all."""
    begin = round(place * SIZE_PX - rng.random() * size_px)
    return min(max(begin, 0), SIZE_PX - size_px)


def to_pixels(frames: np.ndarray) -> Tensor:
    """From uint8 [..., H, W, 3] to float [..., 3, H, W] in [0, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 255


def _train(network: Autoencoder, pixels_BTCHW: Tensor) -> dict[str, float]:
    with precision(pixels_BTCHW.device):
        latents = network.encoder(pixels_BTCHW)
        std = torch.rand(len(latents), 1, 1, 1, 1, device=latents.device) * NOISE_STD_MAX
        decoded = decode_clips(network.decoder, latents + std * torch.randn_like(latents))
    difference = decoded - pixels_BTCHW[:, STRIDE - 1 :]
    absolute, squared = difference.abs().mean(), difference.square().mean()
    down, across, in_time = (difference.diff(dim=axis).abs().mean() for axis in (-2, -1, 1))
    (absolute + 2 * squared + down + across + CHANGE_WEIGHT * in_time).backward()
    return {"absolute": absolute.item(), "change_error": in_time.item(), "psnr_training": _psnr(squared)}


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
        "change_error": float((clean - pixels).diff(dim=1).abs().mean()),
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
    parser.add_argument("--start", type=Path, help="run folder whose encoder and decoder to start from")
    return parser.parse_args()


if __name__ == "__main__":
    main()
