"""``hiar-server --plan``: what each worker would hold in memory and how fast videos would be, before anything runs.

Reads the model folder's small files only. Every figure is an estimate or a count from sizes; none is measured.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TextIO

import pynvml  # type: ignore[import-untyped]

from engine import (
    EngineConfig,
    Manifest,
    Site,
    StartError,
    Verdict,
    assumed_site,
    gpu_site,
    host_site,
    judge,
    room_for_videos,
    settled,
)
from server.gpus import VISIBLE, HiddenGpu, gpu_of, text_of
from server.model import model_of, roll_out_words
from server.presets import aligned
from server.settings import SettingError, Settings

FITS, FITS_NOT = 0, 3
"""Exit statuses."""


def print_plan(settings: Settings, config: EngineConfig, out: TextIO) -> int:
    """Print the plan; returns the exit status. Raises ``SettingError`` where nothing can be planned for."""
    tiny = _tiny_variant(settings)
    tiny_decoder = None if tiny is None else tiny.decoder
    if settings.assume is not None:
        if not config.on_gpu:
            config = replace(config, devices=tuple(f"cuda:{index}" for index in range(len(config.devices))))
        site = assumed_site(config, settings.assume, tiny_decoder)
    elif config.on_gpu:
        site = gpu_site(config, _gpus(config.devices), tiny_decoder)
    else:
        config = settled(config)
        site = host_site(config, tiny_decoder)
    verdict = judge(config, site)
    _print(config, site, verdict, roll_out_words(config.manifest, settings), out)
    return FITS if verdict.fits else FITS_NOT


def _print(config: EngineConfig, site: Site, verdict: Verdict, roll_out: str, out: TextIO) -> None:
    memory, video = verdict.memory, config.manifest.video
    kinds = " + ".join(dict.fromkeys(device.kind for device in site.devices))
    out.write(
        f"{config.manifest.name} on {len(site.devices)} x {kinds}, {config.dtype_name}, "
        f"{config.max_videos} videos at once, sizes {', '.join(video.size_names)}, {roll_out}\n"
        "Memory in GB, planned from sizes. Contexts, graphs, slack and totals are estimates; nothing was measured.\n\n"
    )
    for line in aligned(memory.table):
        out.write(line + "\n")
    width_px, height_px = video.sizes[0]
    room = room_for_videos(config, memory)
    out.write(
        f"\nexpected: about {memory.frames_per_s:.1f} frames/s at {width_px}x{height_px}, all videos together "
        f"(an estimate; the model plays at {video.fps})\nmemory for videos at once: {room}\n"
    )
    if verdict.fits:
        out.write("it fits\n")
        return
    out.write(f"it does not fit: {'; '.join(verdict.reasons)}\n")
    if verdict.flags is None:
        out.write("no flags make it fit: it needs more devices, or larger ones\n")
    else:
        out.write(f"these flags, behind the same command, make it fit:\n{verdict.flags}\n")


def _tiny_variant(settings: Settings) -> Manifest | None:
    """The model with the tiny decoder, if its folder holds that."""
    try:
        return model_of(settings, "tiny")
    except StartError:
        return None


def _gpus(devices: Sequence[str]) -> list[tuple[str, int]]:
    """Name and free bytes of GPUs that are here, by the driver's own library."""
    try:
        pynvml.nvmlInit()
        gpus = [_gpu(device) for device in devices]
        pynvml.nvmlShutdown()
    except (HiddenGpu, pynvml.NVMLError) as error:
        raise SettingError(
            f"--devices is {','.join(devices)}; the GPUs of this machine cannot be asked ({error}); "
            "name some to plan for with --assume"
        ) from error
    return gpus


def _gpu(device: str) -> tuple[str, int]:
    handle = gpu_of(pynvml, device, os.environ.get(VISIBLE)).handle
    return text_of(pynvml.nvmlDeviceGetName(handle)), int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
