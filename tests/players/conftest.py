from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.players.programs import chromium
from tests.server.rehearsed_server import RehearsedServer, rehearsed_server

BROKEN_SEED = 66
"""Of videos that fail at block 3."""


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
