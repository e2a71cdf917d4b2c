"""The short video that a new group makes before it serves, so that the first caller does not pay for first calls."""

from engine.config import LATENT_STRIDE_PX, Manifest
from engine.law.schedule import frames_in_block
from engine.messages import BlockTicket, CloseTicket, EncodePrompt, OpenTicket, StartPhase, StartProgress, Ticket
from engine.request import Output, Quality, TensorBytes

VIDEO = "warm-up"
NUM_BLOCKS = 2
QUESTION = EncodePrompt(request=-1, text="warm up")


def messages(manifest: Manifest, embedding: TensorBytes) -> tuple[Ticket, ...]:
    """What a chain is sent: the video opens, makes its blocks and closes."""
    video, rollout = manifest.video, manifest.rollout
    width_px, height_px = video.sizes[0]
    opening = OpenTicket(
        video=VIDEO,
        seed=0,
        latent_height=height_px // LATENT_STRIDE_PX,
        latent_width=width_px // LATENT_STRIDE_PX,
        fps=video.fps,
        quality=Quality.STANDARD,
        output=Output.FRAGMENTS,
        embedding=embedding,
    )
    blocks = (
        BlockTicket(
            video=VIDEO,
            block=block,
            num_frames=frames_in_block(rollout, block),
            last=block == NUM_BLOCKS - 1,
            opening=block == 0,
        )
        for block in range(NUM_BLOCKS)
    )
    return (opening, *blocks, CloseTicket(video=VIDEO))


def progress(num_blocks: int) -> StartProgress:
    """So many of its blocks are made."""
    return StartProgress(phase=StartPhase.WARMING, what="", done=num_blocks, total=NUM_BLOCKS)
