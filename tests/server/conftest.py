from collections.abc import Iterator

import pytest

from engine import EngineOptions
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, SLOW, line
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


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with keys; videos take for ever."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(
        "# who may use it\n\n"
        + line("alice", ALICE, "priority=5")
        + line("bob", BOB, "videos=1")
        + line("slow", SLOW, "requests=2")
    )
    options = EngineOptions(max_videos=1, max_queue=50)
    with serving(Behaviour(first_block_s=3600), keys=path, max_per_client=3, engine=options) as server:
        yield server


@pytest.fixture
def clean(locked: LiveServer) -> Iterator[LiveServer]:
    """With no video in it, before and after."""
    yield locked
    for video in list(locked.engine.videos):
        locked.begin(video.forget()).result(5)
