"""The small model's encoder: one linear map from what 4 frames show in 8 x 8 pixels to a latent.

Fitted by ``training.autoencoder``. Letters: B clips, T frames or latent frames of a clip, C channels, Y and X latent
height and width, H and W height and width in pixels, P values of a patch, N patches of all clips.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import LATENT_STRIDE_PX
from engine.model.tiny_vae import RGB, STRIDE

PATCH_VALUES = STRIDE * RGB * LATENT_STRIDE_PX**2


class PatchEncoder(nn.Module):
    """From frames to latents by one linear map; every latent depends on its own 4 frames of 8 x 8 pixels alone."""

    mean: Tensor
    components: Tensor

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(PATCH_VALUES))
        self.register_buffer("components", torch.zeros(latent_channels, PATCH_VALUES))

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        """``frames_BTCHW``: RGB in [0, 1], a multiple of 4. Returns [B, T / 4, C, Y, X]."""
        bias_C = -(self.components @ (1 + self.mean))
        latents_NYXC: Tensor = functional.linear(patches(frames_BTCHW), 2 * self.components, bias_C)
        latents = latents_NYXC.movedim(-1, 1)
        by_clip: Tensor = latents.unflatten(0, (len(frames_BTCHW), -1))
        return by_clip

    def encode(self, pixels_TCHW: Tensor) -> Tensor:
        """Encode a stream's beginning: RGB in [0, 1], [1 + 4k, 3, 8Y, 8X], to latents [1 + k, C, Y, X].

        A stream's first latent stands for its first frame and the 3 before it, which are taken to be like it. Raises
        ``ValueError`` for other frame counts.
        """
        num_frames = len(pixels_TCHW)
        if num_frames < 1 or (num_frames - 1) % STRIDE:
            raise ValueError(f"{num_frames} frames cannot be encoded: one more than a multiple of {STRIDE} can")
        before_TCHW = pixels_TCHW[:1].expand(STRIDE - 1, -1, -1, -1)
        latents_TCYX: Tensor = self(torch.cat([before_TCHW, pixels_TCHW])[None].float())[0]
        return latents_TCYX


def patches(frames_BTCHW: Tensor) -> Tensor:
    """The pixels that every latent is made of, [B * T / 4, Y, X, P]."""
    _, _, channels, height, width = frames_BTCHW.shape
    side = LATENT_STRIDE_PX
    cut = frames_BTCHW.reshape(-1, STRIDE, channels, height // side, side, width // side, side)
    return cut.permute(0, 3, 5, 1, 2, 4, 6).flatten(3)
