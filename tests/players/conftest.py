from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page

from engine import EngineOptions
from server.settings import TransportLimits
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.players.programs import chromium
from tests.players.viewer import Viewer
from tests.server.live_server import LiveServer, serving
from tests.server.rehearsed_server import RehearsedServer, rehearsed_server

BROKEN_SEED = 66
"""Of videos that fail at block 3."""
Open = Callable[..., Viewer]


@pytest.fixture(scope="module")
def server() -> Iterator[RehearsedServer]:
    """A block of 0.75 s takes its one worker 0.3 s; its pictures show their numbers."""
    with rehearsed_server(0.03, "--max-videos", "2", faults=(f"raise:1:3:{BROKEN_SEED}",), workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page whose scripts must not fail."""
    opened = browser.new_page()
    opened.set_default_timeout(30_000)
    errors = list[str]()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


@pytest.fixture(scope="module")
def site() -> Iterator[LiveServer]:
    """Two places, and a second and a half of video ahead of who watches. Its pictures show their numbers."""
    engine = EngineOptions(max_videos=2, lead_target_s=1.5)
    with serving(Behaviour(block_s=0.05, media=PaintedMedia), TransportLimits(), engine=engine) as live:
        yield live


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Lets viewers open the player; in the end none of their pages may have done anything wrong."""
    with ExitStack() as leaving:

        def open_page(url: str, query: str = "", **profile: object) -> Viewer:
            viewer = Viewer(browser, url, query, **profile)
            leaving.callback(viewer.close)
            return viewer

        yield open_page
