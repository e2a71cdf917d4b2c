"""Many at once: viewers of one video by HLS, and more videos, prompts and addresses than metrics may have labels."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from engine.law.schedule import frames_before_block
from tests.instant import MANIFEST, Behaviour
from tests.media.painted import frame_numbers
from tests.painted_mp4 import PaintedMedia
from tests.server.live_server import LiveServer, serving
from tests.server.scrape import scrape

NUM_VIEWERS, NUM_BLOCKS = 100, 5
MANY = 1000


@pytest.fixture
def paced() -> Iterator[LiveServer]:
    with serving(Behaviour(block_s=0.3)) as live:
        yield live


async def watch(client: httpx.AsyncClient, video: str) -> list[bytes]:
    """As LL-HLS players do: each reload waits for one more block, which is then asked for."""
    blocks = []
    for block in range(NUM_BLOCKS):
        playlist = await client.get(f"{video}/index.m3u8?_HLS_msn={block}&_HLS_part=0")
        assert playlist.status_code == 200 and f"blocks/{block}.m4s" in playlist.text.splitlines()
        answer = await client.get(f"{video}/blocks/{block}.m4s")
        assert answer.status_code == 200
        blocks.append(answer.content)
    return blocks


@pytest.mark.slow
@pytest.mark.in_time
def test_a_hundred_players_share_one_generation_and_each_reload_is_answered(paced: LiveServer) -> None:
    async def body(video: str) -> list[list[bytes]]:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=NUM_VIEWERS)) as client:
            return await asyncio.gather(*(watch(client, video) for _ in range(NUM_VIEWERS)))

    made = httpx.post(f"{paced.url}/v1/videos", json={"prompt": "x", "seconds": 3}).json()["id"]
    seen = asyncio.run(body(f"{paced.url}/v1/videos/{made}"))
    assert len(seen) == NUM_VIEWERS and all(blocks == seen[0] for blocks in seen)
    assert len(paced.engine.opened) == 1
    now = scrape(paced.url)
    assert now.value("hiar_blocks_generated_total") == NUM_BLOCKS
    assert now.total("hiar_http_requests_total", route="/v1/videos/{video_id}/blocks/{n}.m4s", code="200") == 500


@pytest.mark.parametrize("block", [1, 3])
def test_who_joins_at_a_block_sees_the_pictures_from_there(block: int) -> None:
    with serving(Behaviour(media=PaintedMedia)) as live:
        video = httpx.post(f"{live.url}/v1/generate", json={"prompt": "x", "seconds": 4, "linger_seconds": 60})
        address = f"{live.url}/v1/videos/{video.headers['x-video-id']}/stream?from={block}"
        assert frame_numbers(httpx.get(address).content) == list(
            range(frames_before_block(MANIFEST.rollout, block), 64)
        )


@pytest.mark.slow
def test_a_thousand_videos_prompts_and_addresses_make_no_new_series() -> None:
    with serving(max_per_client=MANY) as live, httpx.Client(base_url=live.url) as client:
        client.post("/v1/generate", json={"prompt": "the first", "seconds": 0.1})
        before = scrape(live.url)
        for number in range(MANY):
            answer = client.post("/v1/generate", json={"prompt": f"a fox {number}", "seconds": 0.1})
            assert answer.status_code == 200
            client.get(f"/path/{number}")
        after = scrape(live.url)
        assert after.values.keys() == before.values.keys()
        finished = after.value("hiar_videos_finished_total", reason="completed")
        assert finished - before.value("hiar_videos_finished_total", reason="completed") == MANY
