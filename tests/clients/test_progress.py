"""What is shown while a video arrives."""

import io

import pytest

from hiar_client.client import Fragment
from hiar_client.progress import Progress, ProgressBar, progress_on


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fragment(block: int, num_frames: int) -> Fragment:
    return Fragment(block=block, data=bytes(1000), num_frames=num_frames, duration_s=num_frames / 16)


def test_the_summary_counts_from_the_request() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock)
    for block, (wait_s, num_frames) in enumerate([(0.5, 9), (0.375, 12), (0.375, 12)]):
        clock.now_s += wait_s
        progress.advance(fragment(block, num_frames))
    assert progress.realtime_factor == 2.0
    assert progress.summary("x.mp4") == (
        "x.mp4: 2.06 s of video, 33 frames, 3 kB; first fragment after 0.50 s, last after 1.25 s; 2.00x realtime"
    )


def test_one_fragment_has_no_speed() -> None:
    progress = Progress(io.StringIO())
    progress.advance(fragment(0, 9))
    assert progress.realtime_factor is None
    assert "realtime" not in progress.summary("x.mp4")


def test_plain_lines_are_few() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock)
    for block in range(100):
        clock.now_s += 0.1
        progress.advance(fragment(block, 12))
    assert 4 <= len(stream.getvalue().splitlines()) <= 6


def test_a_bar_only_on_a_terminal_with_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert isinstance(progress_on(Terminal(), 5.0), ProgressBar)
    assert not isinstance(progress_on(io.StringIO(), 5.0), ProgressBar)
    monkeypatch.setenv("CI", "true")
    assert not isinstance(progress_on(Terminal(), 5.0), ProgressBar)


def test_the_bar_moves_and_leaves_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    stream = Terminal()
    with progress_on(stream, None) as progress:
        progress.advance(fragment(0, 9))
        progress.note("[stopped]")
    assert "hiar: [stopped]" in stream.getvalue()
