from collections.abc import Iterator

import pytest

from tests.server.live_server import LiveServer, serving


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[LiveServer]:
    """One server for many tests that leave it as they found it."""
    with serving() as server:
        yield server
