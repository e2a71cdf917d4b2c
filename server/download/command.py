"""The ``hiar-download`` command: puts a model's files into a folder that ``hiar-server --model`` can serve.

Serving itself downloads nothing. Loads no model and never imports torch.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from server.download.folder import ModelFolder, readable
from server.download.hub import DEFAULT_ENDPOINT, DownloadError, Hub, HubFile, Source

HIAR = "hiar"
HIAR_REPO = "jackyhate/HiAR"
HIAR_SOURCES = (
    Source(repo=HIAR_REPO, patterns=("hiar.pt",), takes_pickles=True),
    Source(
        repo="Wan-AI/Wan2.1-T2V-1.3B",
        patterns=(
            "config.json",
            "Wan2.1_VAE.pth",
            "models_t5_umt5-xxl-enc-bf16.pth",
            "google/umt5-xxl/tokenizer.json",
        ),
        takes_pickles=True,
    ),
)
"""HiAR's weights, and what it takes from the model that it was made from (``hiar`` spec section 2)."""
TINY_DECODER = Source(repo="Kijai/WanVideo_comfy", patterns=("taew2_1.safetensors",))
"""A copy of the decoder; its author keeps it elsewhere, at madebyollin/taehv on GitHub."""

_EXAMPLES = """\
examples:
  hiar-download hiar --to models/hiar                    HiAR, with the decoder and text encoder of Wan 2.1
  hiar-download hiar --tiny-decoder --to models/hiar     and the small decoder, for --decoder tiny
  hiar-download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --to models/wan
  hiar-download owner/name --revision v2 --only 'transformer/*' --to models/mine
  hiar-download hiar --to models/hiar --dry-run          list files and sizes

then: hiar-server --model models/hiar --devices cuda:0

The same command goes on with a download that was cut off, and does nothing once it is complete; delete .complete in
the folder to compare all files with the hub again. Several processes may be told to fill one folder: one does, the
others wait. Files that can hold a program are not taken, but for the .pt and .pth files of hiar, which the server reads
as tensors only. HF_TOKEN is a token for repositories that ask for one, HF_ENDPOINT a mirror, HTTPS_PROXY a proxy.

That the repositories hold the files that hiar names is known from their users; it was not tried by this project.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits the process where it fails."""
    options = _parser().parse_args(arguments)
    hub = Hub(os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/"))
    try:
        sources = sources_of(options.source, options.revision, tuple(options.only), options.tiny_decoder)
        if options.dry_run:
            _list(hub, sources)
        else:
            download(hub, sources, ModelFolder(options.to))
    except DownloadError as error:
        sys.exit(f"hiar-download: {error}")
    except OSError as error:
        sys.exit(f"hiar-download: {_disk_trouble(error, options.to)}")
    except KeyboardInterrupt:
        sys.exit("hiar-download: stopped; what has arrived is kept, run the same command again to go on")


def sources_of(name: str, revision: str | None, only: tuple[str, ...], tiny_decoder: bool) -> list[Source]:
    """What to download for ``name``: our recipe, or a repository. Raises ``DownloadError``."""
    decoder = [TINY_DECODER] if tiny_decoder else []
    if name != HIAR:
        return [Source(repo=name, patterns=only, revision=revision), *decoder]
    if only or revision:
        raise DownloadError(f"--only and --revision go with a repository, such as {HIAR_REPO}, and not with {HIAR}")
    return [*HIAR_SOURCES, *decoder]


def download(hub: Hub, sources: Sequence[Source], folder: ModelFolder) -> None:
    """Make ``folder`` hold all of ``sources``. Raises ``DownloadError``, or ``OSError`` where it cannot be written."""
    if folder.holds(sources):
        _tell(f"{folder.path} is complete")
        return
    listed = [(source, hub.files(source)) for source in sources]
    with folder.locked(on_wait=lambda: _tell(f"another process downloads into {folder.path}; waiting for it")):
        if not folder.holds(sources):
            _fill(hub, folder, [file for _, files in listed for file in files])
            folder.finish(listed)
    _tell(f"{folder.path} is complete; serve it with: hiar-server --model {folder.path}")


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
    parser.add_argument("source", metavar="MODEL", help="hiar, or a Hugging Face repository: owner/name")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="folder to fill; made if missing")
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
