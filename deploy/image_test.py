"""Builds the CPU image, runs it as a careful container runtime would, and lets it make a video.

    make image-test

For a Debian machine, as root; no container daemon. Checks the scripts and files that the image must hold, ``/readyz``,
two seconds of video, the image's own health check before and while the server runs, that the root is read-only, and
that the image's stop signal ends the server with status 0.
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx

from deploy.image_build import IMAGE, ROOT, TOOLS, build, buildah

USER = "10001:10001"
SCRIPTS = ("hiar-server", "hiar", "hiar-download")
VIDEO_S = 2
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0
_ENTER = ("unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", str(ROOT / "deploy" / "contain.sh"))


class ImageError(Exception):
    """The image is not what it should be; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A built image: its configuration, where its files are, and the port that its server shall have."""

    config: dict[str, Any]
    root: Path
    port: int

    @property
    def url(self) -> str:
        """Where its server answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *command: str, is_quiet: bool = False) -> subprocess.Popen[bytes]:
        """Start a command in a container of its own."""
        environment = (*self.config["Env"], f"HIAR_PORT={self.port}")
        whole = (*_ENTER, str(self.root), self.config["WorkingDir"], *environment, *command)
        return subprocess.Popen(whole, stdout=subprocess.DEVNULL if is_quiet else None)

    def status(self, *command: str) -> int:
        """Run a command to its end without its output. Returns its exit status."""
        return self.start(*command, is_quiet=True).wait()


def main() -> None:
    """Command line; exits the process."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        sys.exit(f"image-test: {', '.join(missing)} not found; on Debian: apt-get install {' '.join(TOOLS)}")
    if os.geteuid() != 0:
        sys.exit("image-test: only root can make file systems and enter them; try: sudo make image-test")
    began_s = time.monotonic()
    try:
        build()
        _tell(f"built in {time.monotonic() - began_s:.0f} s")
        with mounted() as image:
            check_files(image)
            check_server(image)
    except (ImageError, subprocess.CalledProcessError, httpx.HTTPError) as error:
        sys.exit(f"image-test: {error}")
    _tell(f"passed in {time.monotonic() - began_s:.0f} s; buildah rmi {IMAGE} removes it")


@contextmanager
def mounted() -> Iterator[Image]:
    """The files of the image as a folder."""
    container = buildah("from", IMAGE)
    try:
        config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        yield Image(config=config, root=Path(buildah("mount", container)), port=port)
    finally:
        buildah("umount", container)
        buildah("rm", container)


def check_files(image: Image) -> None:
    """Check what does not need a running server. Raises ``ImageError``."""
    expect(image.config["User"] == USER, f"it runs as {image.config['User']!r}")
    for script in SCRIPTS:
        expect(image.status(script, "--help") == 0, f"{script} --help fails")
    expect(
        image.status("sh", "-c", "! touch /app/x 2>/dev/null && touch /tmp/x /cache/x") == 0, "its root is not right"
    )
    bill = json.loads((image.root / image.config["Labels"]["hiar.sbom"].lstrip("/")).read_text())
    packages = {part["purl"].partition("@")[0] for part in bill["components"]}
    expect(
        {"pkg:pypi/torch", "pkg:pypi/av", "pkg:deb/debian/libc6", "pkg:generic/python"} <= packages, "its SBOM is short"
    )
    size = buildah("images", "--format", "{{.Size}}", "--filter", f"reference={IMAGE}")
    _tell(f"{size} unpacked; its SBOM lists {len(packages)} packages")


def check_server(image: Image) -> None:
    """Check the server from start to stop. Raises ``ImageError``."""
    kind, *check = image.config["Healthcheck"]["Test"]
    expect(kind == "CMD" and image.status(*check) == 1, "its health check passes without a server")
    began_s = time.monotonic()
    container = image.start(*image.config["Entrypoint"])
    try:
        wait_until_ready(image, container)
        _tell(f"ready after {time.monotonic() - began_s:.1f} s")
        expect(image.status(*check) == 0, "its health check fails while it serves")
        check_video(image)
        stop(image, container)
    finally:
        container.kill()


def wait_until_ready(image: Image, container: subprocess.Popen[bytes]) -> None:
    """Wait for ``/readyz``. Raises ``ImageError``."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(image):
        expect(container.poll() is None, f"the server ended with status {container.poll()}")
        expect(time.monotonic() < deadline_s, f"the server was not ready within {READY_TIMEOUT_S:g} s")
        time.sleep(0.1)


def check_video(image: Image) -> None:
    """Ask for a video and decode all of it. Raises ``ImageError``."""
    body = {"prompt": "a red fox", "seconds": VIDEO_S, "pace": "fast"}
    answer = httpx.post(f"{image.url}/v1/generate", json=body, timeout=60.0, trust_env=False).raise_for_status()
    with av.open(io.BytesIO(answer.content), "r") as video:
        pictures = list(video.decode(video=0))
        rate = video.streams.video[0].average_rate
    wanted = VIDEO_S * int(rate or 0)
    expect(0 < wanted <= len(pictures), f"its video has {len(pictures)} pictures of {wanted}")
    _tell(f"made {len(pictures)} pictures of {pictures[0].width}x{pictures[0].height}, {len(answer.content)} bytes")


def stop(image: Image, container: subprocess.Popen[bytes]) -> None:
    """Send the image's stop signal to the first process of the container. Raises ``ImageError``."""
    (first,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    os.kill(int(first), signal.Signals[image.config["StopSignal"]])
    status = container.wait(STOP_TIMEOUT_S)
    expect(status == 0, f"the server ended with status {status} on {image.config['StopSignal']}")


def expect(holds: bool, otherwise: str) -> None:
    """Raise ``ImageError`` where something does not hold."""
    if not holds:
        raise ImageError(otherwise)


def _is_ready(image: Image) -> bool:
    try:
        return httpx.get(f"{image.url}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _tell(text: str) -> None:
    print(f"image-test: {text}", flush=True)


if __name__ == "__main__":
    main()
