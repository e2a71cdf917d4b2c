"""FFmpeg, mpv and VLC play videos from their addresses, as anyone would call them."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.players.programs import make, make_all, number_in_file, numbers_in_planes, program, run
from tests.server.rehearsed_server import RehearsedServer

pytestmark = [pytest.mark.slow, pytest.mark.in_time]


def test_ffmpeg_plays_hls_of_a_running_video_to_its_end(server: RehearsedServer) -> None:
    video = make(server.url, seconds=6)
    quiet = [program("ffmpeg"), "-nostdin", "-v", "error"]
    raw = run(
        *quiet, "-live_start_index", "0", "-i", f"{video}/index.m3u8", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"
    )
    assert numbers_in_planes(raw, 96, 96) == list(range(96))


def test_mpv_plays_a_running_video_to_its_end(server: RehearsedServer, tmp_path: Path) -> None:
    video = make(server.url, seconds=3)
    assert mpv(tmp_path, f"{video}/content") == list(range(48))


def test_mpv_seeks_in_a_finished_video(server: RehearsedServer, tmp_path: Path) -> None:
    video = make_all(server.url, seconds=6)
    assert mpv(tmp_path, "--start=4.5", "--frames=3", f"{video}/content") == [72, 73, 74]


def test_vlc_plays_hls_of_a_running_video_and_seeks_in_it_when_it_is_finished(server: RehearsedServer) -> None:
    video = make(server.url, seconds=4, pace="realtime")
    live = vlc(f"{video}/index.m3u8")
    assert live == sorted(live) and live[-1] >= 62, "it joins at the live end, and a slow machine leaves pictures out"
    assert vlc("--start-time=3", f"{video}/content")[0] in {47, 48}, "it begins at the second, or a picture before"


def mpv(folder: Path, *arguments: str) -> list[int]:
    """The numbers in the pictures that it shows."""
    show = ["--vo=image", "--vo-image-format=png", f"--vo-image-outdir={folder}", "--untimed"]
    run(program("mpv"), "--no-config", "--really-quiet", "--ao=null", "--hr-seek=yes", *show, *arguments)
    return [number_in_file(picture) for picture in sorted(folder.iterdir())]


def vlc(*arguments: str) -> list[int]:
    """The numbers in the pictures that it shows, in time; not as root, as which it does not run."""
    somebody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
    quiet = ["--intf=dummy", "--quiet", "--no-audio", "--no-video-title-show", "--play-and-exit"]
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        shown = Path(name) / "shown"
        show = ["--vout=yuv", "--yuv-chroma=I420", f"--yuv-file={shown}"]
        command = [*somebody, program("cvlc"), *quiet, *show, *arguments, "vlc://quit"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env={**os.environ, "HOME": name})
        return numbers_in_planes(_pictures(shown.read_bytes(), 96 * 96 * 3 // 2), 96, 96)


def _pictures(y4m: bytes, num_bytes: int) -> bytes:
    """Without the lines between them."""
    rest, line = y4m.partition(b"\n")[2], len(b"FRAME\n")
    return b"".join(rest[at + line : at + line + num_bytes] for at in range(0, len(rest), line + num_bytes))
