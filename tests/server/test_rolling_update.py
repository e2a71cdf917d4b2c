"""Two servers behind a load balancer, one of them drained under load: nobody is refused, every stream ends typed."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from engine import EngineOptions
from hiar_client.boxes import BoxSplitter
from hiar_client.boxes import signal as signal_of
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving
from tests.server.round_robin import RoundRobin

pytestmark = pytest.mark.in_time

NUM_CALLERS = 3


class Callers:
    """Ask for one video after another, each on a new connection, until told to stop."""

    def __init__(self, url: str, **body: object) -> None:
        self._url, self._body = url, {"prompt": "x", **body}
        self._over = threading.Event()
        self.ends: list[dict[str, Any] | int | None] = []
        """How each answer ended: what it said last, or the status that refused it."""
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(NUM_CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            answer = httpx.post(f"{self._url}/v1/generate", json=self._body, timeout=30)
            is_video = answer.status_code == 200
            self.ends.append(
                signal_of(list(BoxSplitter().feed(answer.content))[-1]) if is_video else answer.status_code
            )

    def more(self, count: int) -> Callable[[], bool]:
        """Whether so many more have been answered."""
        had = len(self.ends)
        return lambda: len(self.ends) >= had + count

    def stop_asking(self) -> None:
        """Behind what is being answered."""
        self._over.set()

    def stop(self) -> None:
        """Wait until all is answered, too."""
        self.stop_asking()
        for thread in self._threads:
            thread.join()


def drain(server: LiveServer, balancer: RoundRobin) -> None:
    """As Kubernetes does: first no new connections, then the signal."""
    balancer.drop(server.address)
    server.signal()
    server.thread.join(10)
    assert not server.thread.is_alive()


def test_draining_one_of_two_servers_fails_no_request_and_ends_every_stream_typed() -> None:
    room = EngineOptions(max_videos=2 * NUM_CALLERS, max_queue=2 * NUM_CALLERS)
    with (
        serving(Behaviour(block_s=0.02), engine=room, max_per_client=100) as old,
        serving(Behaviour(block_s=0.02), engine=room, max_per_client=100) as new,
    ):
        balancer = RoundRobin([old.address, new.address])
        with balancer.listening() as url:
            endless, short = Callers(url, pace="realtime"), Callers(url, seconds=1)
            try:
                eventually(short.more(6), 10)
                eventually(lambda: old.engine.load.running > 0 and new.engine.load.running > 0)
                drain(old, balancer)
                eventually(short.more(6), 10)
            finally:
                short.stop()
                endless.stop_asking()
                new.signal()
                endless.stop()
    assert [end["reason"] for end in short.ends if isinstance(end, dict)].count("completed") >= 12
    assert {end["reason"] for end in endless.ends if isinstance(end, dict)} == {"drain"}
    assert not [end for end in (*short.ends, *endless.ends) if not isinstance(end, dict)]
