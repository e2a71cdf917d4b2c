"""The ``hiar-download`` command: puts a model's files into a folder that ``hiar-server --model`` can serve.

Serving itself downloads nothing. Loads no model and never imports torch.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import BASE_FILES, PRESETS, Layout, Preset, names_of_presets
from server.download.folder import ModelFolder, readable
from server.download.hub import DEFAULT_ENDPOINT, DownloadError, Hub, HubFile, Source

TINY_DECODER = Source(repo="Kijai/WanVideo_comfy", patterns=("taew2_1.safetensors",))
"""A copy of the decoder; its author keeps it elsewhere, at madebyollin/taehv on GitHub."""

_EXAMPLES = """\
examples:
  hiar-download hiar --to models/hiar                    HiAR, with the decoder and text encoder of Wan 2.1
  hiar-download hiar --tiny-decoder --to models/hiar     and the small decoder, for --decoder tiny
  hiar-download longlive --to models/longlive            another preset; hiar-server --list-presets has all
  hiar-download owner/name --revision v2 --only 'transformer/*' --to models/mine
  hiar-download owner/name --preset self-forcing --to models/mine     a student that was trained as that preset
  hiar-download hiar --to models/hiar --dry-run          list files and sizes

then: hiar-server --model models/hiar --devices cuda:0

The same command goes on with a download that was cut off, and does nothing once it is complete; delete .complete in
the folder to compare all files with the hub again. Several processes may be told to fill one folder: one does, the
others wait. Files that can hold a program are not taken, but for the .pt and .pth files of presets, which the server
reads as tensors only. HF_TOKEN is a token for repositories that ask for one, HF_ENDPOINT a mirror, HTTPS_PROXY a proxy.
For a preset, hiar.json in the folder tells the server its roll-out.

That the repositories hold the files that presets name is known from their users; it was not tried by this project.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits the process where it fails."""
    options = _parser().parse_args(arguments)
    hub = Hub(os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/"))
    try:
        preset = preset_of(options.source, options.preset, has_only=bool(options.only))
        sources = sources_of(options.source, options.revision, tuple(options.only), options.tiny_decoder)
        if options.dry_run:
            _list(hub, sources)
        else:
            download(hub, sources, ModelFolder(options.to), preset)
    except DownloadError as error:
        sys.exit(f"hiar-download: {error}")
    except OSError as error:
        sys.exit(f"hiar-download: {_disk_trouble(error, options.to)}")
    except KeyboardInterrupt:
        sys.exit("hiar-download: stopped; what has arrived is kept, run the same command again to go on")


def preset_of(source: str, asked: str | None, *, has_only: bool) -> Preset | None:
    """What the folder shall say its roll-out is; None where nothing tells. Raises ``DownloadError``."""
    if source in PRESETS:
        if asked is not None:
            raise DownloadError(f"{source} is a preset itself; leave --preset {asked} out")
        return PRESETS[source]
    if asked is not None:
        if asked not in PRESETS:
            raise DownloadError(f"there is no preset {asked!r}; there are {names_of_presets()}")
        return PRESETS[asked]
    published = [preset.name for preset in PRESETS.values() if preset.hub_id == source]
    if published and not has_only:
        raise DownloadError(
            f"{source} has a roll-out of its own: name its preset in its place, {' or '.join(published)}"
        )
    if "/" not in source:
        raise DownloadError(f"{source!r} is no hub id like owner/name and none of the presets {names_of_presets()}")
    return None


def sources_of(name: str, revision: str | None, only: tuple[str, ...], tiny_decoder: bool) -> list[Source]:
    """What to download for ``name``: a preset, or a repository. Raises ``DownloadError``."""
    decoder = [TINY_DECODER] if tiny_decoder else []
    if name not in PRESETS:
        return [Source(repo=name, patterns=only, revision=revision), *decoder]
    preset = PRESETS[name]
    if only or revision:
        raise DownloadError(f"--only and --revision go with a repository, such as {preset.hub_id}, and not with {name}")
    return [*_parts(preset), *decoder]


def _parts(preset: Preset) -> list[Source]:
    """The student with its LoRAs, and what it takes from the model that it was made from."""
    is_original = preset.layout is Layout.ORIGINAL
    sizes = () if is_original else ("transformer/*.json",)
    files = (*sizes, preset.file, *(lora.file for lora in preset.loras))
    return [
        Source(repo=preset.hub_id, patterns=files, takes_pickles=is_original),
        Source(repo=preset.base_hub_id, patterns=BASE_FILES[preset.layout], takes_pickles=is_original),
    ]


def download(hub: Hub, sources: Sequence[Source], folder: ModelFolder, preset: Preset | None = None) -> None:
    """Make ``folder`` hold all of ``sources`` and say that it is of ``preset``.

    Raises:
        DownloadError: something cannot be had.
        OSError: the folder cannot be written.
    """
    if folder.holds(sources) and (preset is None or folder.tells(preset.name)):
        _tell(f"{folder.path} is complete")
        return
    listed = [] if folder.holds(sources) else _listed(hub, sources)
    with folder.locked(on_wait=lambda: _tell(f"another process downloads into {folder.path}; waiting for it")):
        if not folder.holds(sources):
            listed = listed or _listed(hub, sources)
            _fill(hub, folder, [file for _, files in listed for file in files])
            _tell_preset(folder, preset)  # while the folder still counts as incomplete
            folder.finish(listed)
        else:
            _tell_preset(folder, preset)
    _tell(f"{folder.path} is complete; serve it with: hiar-server --model {folder.path}")


def _listed(hub: Hub, sources: Sequence[Source]) -> list[tuple[Source, list[HubFile]]]:
    return [(source, hub.files(source)) for source in sources]


def _tell_preset(folder: ModelFolder, preset: Preset | None) -> None:
    if preset is not None:
        folder.tell(preset.name)
        _tell(f"preset {preset.name}: {preset.title}; licence of its weights: {preset.licence}")


def _fill(hub: Hub, folder: ModelFolder, files: Sequence[HubFile]) -> None:
    missing = folder.missing(files)
    folder.reserve(missing)
    for number, file in enumerate(missing, start=1):
        _tell(f"{number} of {len(missing)}: {file.path} of {file.repo}, {readable(file.num_bytes)}")
        hub.fetch(file, folder.partial(file))
        folder.place(file)


def _list(hub: Hub, sources: Sequence[Source]) -> None:
    files = [file for source in sources for file in hub.files(source)]
    for file in files:
        _tell(f"{readable(file.num_bytes):>10}  {file.path}  ({file.repo} at {file.commit[:12]})")
    _tell(f"{readable(sum(file.num_bytes for file in files)):>10}  in {len(files)} files")


def _disk_trouble(error: OSError, folder: Path) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk of {folder} is full; what has arrived is kept: make room and run the same command again"
    if error.errno is None:  # the hub's library, where a connection ended early
        return f"{error}; what has arrived is kept, run the same command again"
    return f"cannot write {error.filename or folder}: {error.strerror}"


def _tell(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hiar-download",
        description="Download a model into a folder that hiar-server can serve.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="MODEL", help="a preset such as hiar, or a Hugging Face repository: owner/name"
    )
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="folder to fill; made if missing")
    parser.add_argument("--preset", metavar="NAME", help="of a repository: the preset that its model was trained as")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (main)")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        default=[],
        help="take just the files that match, such as 'vae/*.json'; may be given several times",
    )
    parser.add_argument("--tiny-decoder", action="store_true", help=f"also {TINY_DECODER.patterns[0]}")
    parser.add_argument("--dry-run", action="store_true", help="list files and sizes, and download nothing")
    return parser


if __name__ == "__main__":
    main()
