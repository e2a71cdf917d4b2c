from collections.abc import Iterator

import pytest

from tests.clients.both import MakeClient, making
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.live_server import LiveServer


@pytest.fixture(scope="module")
def shared() -> Iterator[LiveServer]:
    """One server for many tests that leave it as they found it."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def painted() -> Iterator[LiveServer]:
    """One whose pictures show their numbers."""
    with serving(Behaviour(media=PaintedMedia)) as server:
        yield server


@pytest.fixture(scope="module", params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    with making(request.param) as make:
        yield make
