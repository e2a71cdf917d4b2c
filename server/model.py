"""The model that the settings name: its manifest, and what is said of its roll-out.

Knows no engine and no route.
"""

import logging
from dataclasses import replace

from engine import Manifest, published_manifest, read_manifest
from server.settings import SettingError, Settings

_log = logging.getLogger(__name__)


def model_of(settings: Settings, decoder: str | None = None) -> Manifest:
    """The model with the decoder that the settings ask for, unless it is another; a plan needs no folder of a preset.

    Raises:
        StartError: the folder holds no model that can be served so.
        SettingError: a preset is to be served and there is no folder with its files.
    """
    decoder = decoder or settings.decoder
    if settings.preset is None or settings.model != Settings.model:
        manifest = read_manifest(
            settings.model, decoder, preset=settings.preset, overrides=settings.changes, loras=settings.loras
        )
    elif settings.plan:
        manifest = published_manifest(settings.preset, settings.changes, decoder)
    else:
        raise SettingError(
            f"--preset {settings.preset} needs the folder of the model by --model DIR; "
            f"hiar-download {settings.preset} --to DIR makes one"
        )
    return _with_sizes(manifest, settings.sizes)


def roll_out_words(manifest: Manifest, settings: Settings) -> str:
    """One line on where the roll-out comes from, and with which changes."""
    whose = f"preset {manifest.preset}" if manifest.preset else f"model {manifest.name}"
    return f"roll-out of {whose}" + (f" with {settings.changes}" if str(settings.changes) else "")


def _with_sizes(manifest: Manifest, sizes: tuple[tuple[int, int], ...] | None) -> Manifest:
    """The model for these picture sizes only."""
    if sizes is None:
        return manifest
    foreign = [f"{width}x{height}" for width, height in sizes if (width, height) not in manifest.video.sizes]
    if foreign:
        _log.warning("%s was not trained for %s: expect worse pictures", manifest.name, ", ".join(foreign))
    return replace(manifest, video=replace(manifest.video, sizes=sizes))
