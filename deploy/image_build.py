"""Builds the CPU image without a container daemon: buildah, on a base that mmdebstrap makes.

The Dockerfile's own base is on a registry of images; a fresh Debian bookworm takes its place here. pip is configured
inside the build as it is outside. Base and image stay in the storage of buildah.
Knows nothing of running the image. Needs root.
"""

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "localhost/hiar-bookworm"
IMAGE = "localhost/hiar-server"
TOOLS = ("buildah", "mmdebstrap")
_BASE_PACKAGES = "python3,python3-venv,ca-certificates"


def build() -> None:
    """Build the image. Raises ``CalledProcessError``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not buildah("images", "--quiet", "--filter", f"reference={BASE}"):
            _build_base(folder / "base.tar")
        listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, check=True)
        configuration, visible = pip_configuration(listing.stdout.decode())
        secret = folder / "pip.conf"
        secret.write_text(configuration)
        volumes = [option for path in visible for option in ("--volume", f"{path}:{path}:ro")]
        options = ("--format", "docker", "--isolation", "chroot", "--build-arg", f"BASE={BASE}")
        command = ("buildah", "bud", *options, "--secret", f"id=pip,src={secret}", *volumes, "--tag", IMAGE, str(ROOT))
        subprocess.run(command, check=True)


def buildah(*arguments: str) -> str:
    """Run buildah. Returns what it prints. Raises ``CalledProcessError``."""
    return subprocess.run(("buildah", *arguments), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def pip_configuration(listing: str) -> tuple[str, list[Path]]:
    """Turn what ``pip config list`` prints into a pip.conf, and the local paths that it names.

    The pages of an index in a folder link to files beside it, so the folder above is what is needed.
    """
    values: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        values[key.rpartition(".")[2]] = " ".join(str(ast.literal_eval(value)).split())
    words = [word for value in values.values() for word in value.split()]
    indexes = {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}
    paths = indexes | {Path(word) for word in words if word.startswith("/")}
    lines = ["[global]", *(f"{key} = {value}" for key, value in values.items()), ""]
    return "\n".join(lines), sorted(path for path in paths if path.exists())


def _build_base(archive: Path) -> None:
    arguments = ("--quiet", "--variant=apt", f"--include={_BASE_PACKAGES}", "bookworm", str(archive))
    subprocess.run(("mmdebstrap", *arguments), check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(archive), "/")
    buildah("commit", "--quiet", "--rm", container, BASE)
