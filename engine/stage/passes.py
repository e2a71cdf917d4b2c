"""Making segments, and the batch that a forward reads of them.

Letters: G segments, F latent frames of a block, C latent channels, Y and X latent height and width.
"""

import torch
from torch import Tensor

from engine.config import RolloutConfig
from engine.law.schedule import Level, clean_level, first_latent_frame, latent_frames_in_block
from engine.model.segments import SegmentBatch
from engine.stage.denoise import DenoiseStage, StageVideo
from engine.stage.network import Network
from engine.stage.segment import Segment


def cache_pass(
    rollout: RolloutConfig, stage: DenoiseStage, video: StageVideo, block: int, latents_FCYX: Tensor, level: Level
) -> Segment:
    """The cache pass of a block in a stage that writes pages; what it reads is kept where a prompt may ask for it."""
    if stage.re_encodes:
        video.read_FCYX[block] = latents_FCYX
        video.read_FCYX.pop(block - rollout.window_blocks, None)
    return Segment(
        stage=stage,
        video=video,
        block=block,
        num_latent_frames=latent_frames_in_block(rollout, block),
        latents_FCYX=latents_FCYX,
        level=level,
        context=video.context,
        pages=video.pages,
    )


def joint_passes(rollout: RolloutConfig, stage: DenoiseStage, video: StageVideo) -> list[Segment]:
    """The passes that encode a video's window again, under its present prompt, from the next block on.

    They have to run in one forward. A layer stores the keys and values of all its cache passes before it attends, and
    each of these reads the pages that the others write: so they see each other.
    """
    parts = video.pages.encode_again(video.num_cached, video.read_FCYX)
    return [
        Segment(
            stage=stage,
            video=video,
            block=part.block,
            num_latent_frames=latent_frames_in_block(rollout, part.block),
            latents_FCYX=video.read_FCYX[part.block],
            level=clean_level(rollout),
            context=video.context,
            pages=video.pages,
            attended=part.seen,
            write_page=part.page,
        )
        for part in parts
    ]


def pack(rollout: RolloutConfig, model: Network, segments: list[Segment]) -> SegmentBatch:
    """The batch of placed segments, cache passes first, on the model's device."""
    starts = [first_latent_frame(rollout, segment.block) for segment in segments]
    return SegmentBatch(
        latents_GFCYX=torch.stack([latents_of(segment) for segment in segments]),
        timesteps_G=torch.tensor([s.level.timestep for s in segments], dtype=torch.float32, device=model.device),
        starts_G=torch.tensor(starts, dtype=torch.int64, device=model.device),
        contexts=tuple(segment.context for segment in segments),
        page_lists=tuple(tuple(seen.page for seen in segment.attended) for segment in segments),
        token_lists=_token_lists(rollout, model, segments),
        write_pages=tuple(segment.write_page for segment in segments if segment.write_page is not None),
    )


def latents_of(segment: Segment) -> Tensor:
    """Its block [F, C, Y, X]; of a segment that is about to run, or ran."""
    assert segment.latents_FCYX is not None, "noise is drawn before a forward"
    return segment.latents_FCYX


def _token_lists(rollout: RolloutConfig, model: Network, segments: list[Segment]) -> tuple[tuple[int, ...], ...]:
    """Tokens of each page that is read; none, where all pages have as many as the segments that read them."""
    if rollout.first_block_latent_frames is None:
        return ()
    _, _, height, width = segments[0].latent_shape
    frame_tokens = height * width // model.config.patch_px**2
    return tuple(
        tuple(frame_tokens * latent_frames_in_block(rollout, seen.block) for seen in segment.attended)
        for segment in segments
    )
