"""A video through the real server: a process of its own, HTTP, and a socket of this machine."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

from benchmarks.gpu.smoke.apart import missing
from benchmarks.gpu.smoke.check import Check, not_run
from benchmarks.gpu.smoke.model import ENCODER_PACKAGES, PROMPT, SEED, TEXT_PACKAGES, VIDEO_S
from benchmarks.gpu.smoke.video import Video
from engine import Manifest

NAME = "socket"
SERVER_PACKAGES = ("fastapi", "starlette", "uvicorn", "h11", "pydantic", "prometheus_client", "pynvml")
PACKAGES = (*SERVER_PACKAGES, "httpx", *ENCODER_PACKAGES, *TEXT_PACKAGES)
ADDRESS = re.compile(r"listening on (http://\S+)")
READY = re.compile(r"ready after [\d.]+ s")
STOP_S = 10.0
NUM_LAST_LINES = 5
PROGRAM = """\
import ctypes, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
from server.main import main
main()
"""
"""The server, which is told to stop when the process that made it is gone (1: PR_SET_PDEATHSIG)."""


class ServerError(Exception):
    """The server did not get ready."""


def over_a_socket(folder: Path, devices: tuple[str, ...], manifest: Manifest, limit_s: float) -> Check:
    """Start ``hiar-server``, read one video from it and stop it.

    Raises:
        ServerError: it ended or was not ready in time; with its last lines.
        HiarError: of the client: the server refused, or the stream broke.
        TimeoutError: the video was not over in time.
    """
    absent = missing(PACKAGES)
    if absent:
        return not_run(NAME, f"for want of {', '.join(absent)}; the rate at a socket is unmeasured")
    from hiar_client.client import HiarError  # noqa: PLC0415 - its packages may be absent

    began_s = time.monotonic()
    end_s = began_s + limit_s
    with _server(folder, devices, end_s) as url:
        ready_s = time.monotonic() - began_s
        try:
            taken, is_complete = _read_video(url, manifest)
        except HiarError as error:
            if time.monotonic() < end_s:
                raise
            raise TimeoutError("the video was not over in time") from error
    return Check(
        name=NAME,
        result=f"{taken.sentence}; the server was ready after {ready_s:.1f} s",
        passed=is_complete and taken.num_frames == int(VIDEO_S * manifest.video.fps),
        numbers={**taken.numbers, "ready_s": ready_s},
    )


def _read_video(url: str, manifest: Manifest) -> tuple[Video, bool]:
    """The video, and whether the server says that it is complete. Raises ``HiarError`` of the client."""
    from hiar_client.client import HiarClient  # noqa: PLC0415 - its packages may be absent

    width_px, height_px = manifest.video.sizes[0]
    with HiarClient(url) as client:
        taken = Video()
        asked = client.generate(PROMPT, seconds=VIDEO_S, seed=SEED, size=f"{width_px}x{height_px}", pace="fast")
        with asked as video:
            for fragment in video:
                taken.take(fragment.data, fragment.num_frames)
        return taken, video.end is not None and video.end.reason == "completed"


@contextmanager
def _server(folder: Path, devices: tuple[str, ...], end_s: float) -> Iterator[str]:
    """A server that is ready; its address. It is killed when the time is over, so that no reader waits on.

    Raises ``ServerError``.
    """
    flags = ["--model", str(folder), "--devices", ",".join(devices), "--port", "0", "--max-videos", "1"]
    # Settings of the environment, keys of callers say, are for another server.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HIAR_")}
    environment["HIAR_DATA"] = "memory"
    command = [sys.executable, "-c", PROGRAM, *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        lines: SimpleQueue[str | None] = SimpleQueue()
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        over = threading.Timer(max(0.0, end_s - time.monotonic()), process.kill)
        reader.start()
        try:
            url = _await_ready(lines, end_s)
            over.start()
            yield url
        finally:
            over.cancel()
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(STOP_S)  # its workers, which share the pipe, end a moment after a server that was killed


def _await_ready(lines: "SimpleQueue[str | None]", end_s: float) -> str:
    """The address of a server that said it is ready. Raises ``ServerError``."""
    address, last = "", deque[str](maxlen=NUM_LAST_LINES)
    while True:
        try:
            line = lines.get(timeout=max(0.0, end_s - time.monotonic()))
        except Empty:
            raise ServerError(f"the server was not ready in time; it said: {' / '.join(last)}") from None
        if line is None:
            raise ServerError(f"the server ended; it said: {' / '.join(last)}")
        last.append(line)
        if found := ADDRESS.search(line):
            address = found[1]
        if READY.search(line):
            return address


def _read(process: "subprocess.Popen[str]", lines: "SimpleQueue[str | None]") -> None:
    """Pass on what the server says, and show it, until it ends."""
    assert process.stderr is not None
    for line in process.stderr:
        print(f"  server: {line.rstrip()}", flush=True)
        lines.put(line.strip())
    lines.put(None)
