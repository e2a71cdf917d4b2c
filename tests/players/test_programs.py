"""FFmpeg and mpv play videos from their addresses, as anyone would call them."""

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


def mpv(folder: Path, *arguments: str) -> list[int]:
    """The numbers in the pictures that it shows."""
    show = ["--vo=image", "--vo-image-format=png", f"--vo-image-outdir={folder}", "--untimed"]
    run(program("mpv"), "--no-config", "--really-quiet", "--ao=null", "--hr-seek=yes", *show, *arguments)
    return [number_in_file(picture) for picture in sorted(folder.iterdir())]
