"""What the player at `/` does where the browser has too little room, or a piece of the video is not there."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.players.test_player_page import ended, open_player, start, until
from tests.server.rehearsed_server import RehearsedServer

pytestmark = [pytest.mark.slow, pytest.mark.in_time]

LIMITED = (Path(__file__).parent / "limited.js").read_text()


def test_a_gap_is_jumped_over_and_a_full_buffer_is_emptied_behind_the_viewer(
    server: RehearsedServer, page: Page
) -> None:
    page.add_init_script(LIMITED)
    open_player(page, server.url)
    start(page, seconds="9")
    until(page, "limits.gap !== null")
    gap = page.evaluate("limits.gap")
    assert gap == pytest.approx([9 / 16 + 2 * 0.75, 9 / 16 + 3 * 0.75], abs=0.02), "block 3 is not there"
    assert ended(page) == (143, False)
    assert page.evaluate("limits.numRefused") == 1
    assert page.evaluate("video.buffered.start(0)") > 0 and "error" not in page.evaluate("seen")
