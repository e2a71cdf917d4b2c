"""A request that comes twice with one key makes one video."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from engine import EngineOptions
from hiar_client.boxes import BoxSplitter
from server.errors import ApiError
from server.http.rates import Rates
from server.videos.idempotency import LIFETIME_S, MemoryReceipts, Receipt
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, VIDEO, bearer
from tests.server.live_server import LiveServer, eventually, serving


@pytest.fixture(scope="module")
def patient() -> Iterator[LiveServer]:
    """Videos take for ever, and many may wait."""
    options = EngineOptions(max_videos=1, max_queue=50)
    with serving(Behaviour(first_block_s=3600), engine=options, max_per_client=40) as server:
        yield server


def ask(live: LiveServer, key: str, secret: str = "", **fields: object) -> httpx.Response:
    headers = {"Idempotency-Key": key, **bearer(secret)}
    return httpx.post(f"{live.url}/v1/videos", json={**VIDEO, **fields}, headers=headers)


def test_the_same_request_gets_the_same_video(patient: LiveServer) -> None:
    first, again = ask(patient, "a"), ask(patient, "a")
    assert first.status_code == again.status_code == 200
    assert first.json()["id"] == again.json()["id"] and first.headers["location"] == again.headers["location"]
    spaced = httpx.post(
        f"{patient.url}/v1/videos",
        content=b'{ "seconds": 3600,  "prompt": "x" }',
        headers={"Idempotency-Key": "a", "Content-Type": "application/json"},
    )
    assert spaced.json()["id"] == first.json()["id"], "the same fields in another order are the same request"
    assert ask(patient, "b").json()["id"] != first.json()["id"]


def test_another_request_under_the_same_key_is_409(patient: LiveServer) -> None:
    assert ask(patient, "c").status_code == 200
    elsewhere = httpx.post(f"{patient.url}/v1/generate", json=VIDEO, headers={"Idempotency-Key": "c"})
    for answer in (ask(patient, "c", seed=1), elsewhere):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


def test_two_at_once_make_one_video(patient: LiveServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {answer.json()["id"] for answer in pool.map(lambda _: ask(patient, "d"), range(8))}
    assert len(ids) == 1


def test_a_refused_request_is_forgotten(patient: LiveServer) -> None:
    assert ask(patient, "e", size="64x64").status_code == 400
    assert ask(patient, "e").status_code == 200


def test_a_video_that_is_gone_is_not_made_again(patient: LiveServer) -> None:
    made = ask(patient, "f").json()["id"]
    assert httpx.delete(f"{patient.url}/v1/videos/{made}").status_code == 200
    assert ask(patient, "f").status_code == 410


@pytest.mark.parametrize("headers", [[("Idempotency-Key", "x" * 256)], [("Idempotency-Key", "a")] * 2])
def test_what_is_no_key_is_400(patient: LiveServer, headers: list[tuple[str, str]]) -> None:
    answer = httpx.post(f"{patient.url}/v1/videos", json=VIDEO, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_owners_do_not_share_keys(clean: LiveServer) -> None:
    assert ask(clean, "g", ALICE).json()["id"] != ask(clean, "g", BOB).json()["id"]
    assert ask(clean, "g", BOB).status_code == 200, "a repeat takes no place"


def test_a_stream_that_was_cut_is_asked_for_again(live: LiveServer) -> None:
    asked = {"json": {"prompt": "x", "seconds": 3}, "headers": {"Idempotency-Key": "h"}}
    first = httpx.post(f"{live.url}/v1/generate", **asked)  # type: ignore[arg-type]
    eventually(lambda: live.engine.opened[0].is_ended)
    again = httpx.post(f"{live.url}/v1/generate", **asked)  # type: ignore[arg-type]
    assert again.content == first.content and list(BoxSplitter().feed(again.content))
    assert again.headers["x-video-id"] == first.headers["x-video-id"] and len(live.engine.opened) == 1


def test_receipts_are_kept_for_a_day_and_bounded() -> None:
    now = [0.0]
    receipts = MemoryReceipts(clock=lambda: now[0], at_most=2)

    async def known(*names: bytes) -> list[bool]:
        return [await receipts.find(name) is not None for name in names]

    async def check() -> None:
        for name in (b"a", b"b", b"c"):
            await receipts.keep(name, Receipt(b"", "video_1"))
        assert await known(b"a", b"b", b"c") == [False, True, True]
        now[0] = LIFETIME_S - 1
        assert await known(b"b", b"c") == [True, True]
        now[0] = LIFETIME_S
        assert await known(b"b", b"c") == [False, False]

    asyncio.run(check())


# --- how often ---


def test_prompts_change_twice_a_second(patient: LiveServer) -> None:
    video = ask(patient, "i").json()["id"]
    answers = [httpx.post(f"{patient.url}/v1/videos/{video}/prompt", json={"prompt": "y"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[2].json()["error"]["code"] == "rate_limited" and answers[2].headers["retry-after"] == "1"


def test_a_bucket_fills_again_and_a_full_one_takes_no_memory() -> None:
    now = [0.0]
    rates = Rates(clock=lambda: now[0])

    def taken(name: str) -> bool:
        try:
            rates.take(name, burst=2, per_s=2, what="x")
        except ApiError as error:
            assert error.headers == {"Retry-After": "1"}
            return False
        return True

    assert [taken("a") for _ in range(3)] == [True, True, False]
    assert taken("b")
    now[0] = 0.5
    assert [taken("a"), taken("a")] == [True, False]
    now[0] = 10
    assert [taken("a") for _ in range(3)] == [True, True, False]
    for number in range(5000):
        now[0] += 0.1
        taken(str(number))
    assert len(rates._full_at) < 1100
