"""The demonstration: starts a server, lets it generate a short video into a file, and stops it again.

    python -m clients.demo --seconds 8 --out demo.mp4

Uses the ``hiar-server`` command beside this Python and HTTP; whatever happens, no process is left behind.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

import httpx
from rich.console import Console

from hiar_client.client import HiarClient, HiarError
from hiar_client.progress import Progress, progress_on

PROMPT = "a large red circle drifts to the right over a night sky"
READY_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 15.0
_INTERRUPTED = 130
_LOG_TAIL_LINES = 20


class DemoError(Exception):
    """The demonstration failed; the message is for a person."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits the process."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    server = Path(sys.executable).with_name("hiar-server")
    try:
        if not server.is_file():
            raise DemoError(f"there is no {server}; run 'make install' first")
        run([str(server)], options.prompt, options.seconds, options.out)
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def run(server: Sequence[str], prompt: str, seconds: float, out: Path) -> None:
    """Generate ``seconds`` of video into ``out`` with a server of its own. Raises ``DemoError``."""
    if not out.resolve().parent.is_dir():
        raise DemoError(f"the folder of {out} does not exist")
    with tempfile.TemporaryFile() as log:
        port = _free_port()
        with _child([*server, "--host", "127.0.0.1", "--port", str(port)], log) as child:
            url = f"http://127.0.0.1:{port}"
            try:
                _wait_until_ready(url, child)
                progress = _generate(url, prompt, seconds, out)
            except (HiarError, DemoError) as error:
                raise DemoError(f"{error}\n{_tail(log)}") from error
            except OSError as error:
                raise DemoError(f"cannot write {out}: {error.strerror}") from error
    _report(progress, prompt, out)


def _wait_until_ready(url: str, child: subprocess.Popen[bytes]) -> None:
    console = Console(stderr=True)
    began_s = time.monotonic()
    with console.status("starting the server ..."), httpx.Client(base_url=url, trust_env=False, timeout=5.0) as http:
        while not _is_ready(http):
            if child.poll() is not None:
                raise DemoError(f"the server ended with status {child.returncode} before it was ready")
            if time.monotonic() - began_s > READY_TIMEOUT_S:
                raise DemoError(f"the server was not ready within {READY_TIMEOUT_S:g} s")
            time.sleep(0.1)
    _tell(f"the server was ready after {time.monotonic() - began_s:.1f} s")


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _generate(url: str, prompt: str, seconds: float, out: Path) -> Progress:
    progress = progress_on(sys.stderr, seconds)
    with (
        progress,
        HiarClient(url) as client,
        client.generate(prompt, seconds=seconds, pace="fast") as video,
        out.open("wb") as file,
    ):
        file.write(video.init_segment)
        for fragment in video:
            file.write(fragment.data)
            file.flush()
            progress.advance(fragment)
    if not progress.num_blocks:
        raise DemoError("the video ended before its first block")
    return progress


def _report(progress: Progress, prompt: str, out: Path) -> None:
    _tell(f"generated {prompt!r}")
    _tell(progress.summary(str(out)))
    if progress.realtime_factor is not None:
        playback = progress.num_frames / progress.video_s
        _tell(f"{playback * progress.realtime_factor:.1f} frames/s generated, {playback:.1f} needed for real time")
    _tell(f"play it with any player or browser: {out.resolve()}")


@contextmanager
def _child(command: Sequence[str], log: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` in a process group of its own, which is empty afterwards."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "HIAR_DATA": "memory"},  # it leaves nothing behind but the file
        )
    except OSError as error:
        raise DemoError(f"cannot start {command[0]}: {error.strerror}") from error
    try:
        yield child
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end; what is left of its group then is killed."""
    try:
        child.terminate()
        child.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _tell("the server did not stop in time and is killed")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _tail(log: BinaryIO) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(["the server's log ends:", *(f"  {line}" for line in lines)]) if lines else "its log is empty"


def _tell(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clients.demo", description="Start a server, make a video, stop.")
    parser.add_argument("--prompt", default=PROMPT, help=f"what to show ({PROMPT})")
    parser.add_argument("--seconds", type=_positive, default=8.0, metavar="N", help="length of the video (8)")
    parser.add_argument("--out", type=Path, default=Path("demo.mp4"), metavar="FILE", help="MP4 to write (demo.mp4)")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


if __name__ == "__main__":
    main()
