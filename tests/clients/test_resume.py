"""A lost connection is followed by another, and nothing of the video is missing or comes twice."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiar_client import Client, NotFound, Retries, StreamCut, StreamLost, Video
from tests.clients.both import MakeClient
from tests.clients.cutting import cutting
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.server.live_server import LiveServer

NUM_CUTS = 50
NUM_BLOCKS = 80
PAYLOAD_BYTES = 2000
QUICK = Retries(first_wait_s=0.01, longest_wait_s=0.02)
VIDEO = {"prompt": "a fox", "seconds": NUM_BLOCKS * 0.75, "pace": "fast"}


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving(Behaviour(payload_bytes=PAYLOAD_BYTES)) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(live: LiveServer) -> bytes:
    with Client(live.url) as client, client.generate(**VIDEO, resume=False) as video:
        return all_bytes(video)


def all_bytes(video: Video) -> bytes:
    fragments = list(video)
    assert [fragment.block for fragment in fragments] == list(range(len(fragments)))
    assert video.end is not None and video.end.reason == "completed"
    assert video.end.last_block == fragments[-1].block == video.next_block - 1
    return video.init_segment + b"".join(fragment.data for fragment in fragments)


def test_fifty_cuts_at_random_bytes_change_nothing(
    live: LiveServer, undisturbed: bytes, make_client: MakeClient
) -> None:
    chance, num_videos = random.Random(1), len(live.engine.opened)
    cuts = [chance.randint(1, 3 * PAYLOAD_BYTES) for _ in range(NUM_CUTS)]
    with cutting(live.port, cuts) as relay, make_client(relay.url, retries=QUICK) as client:
        with client.generate(**VIDEO) as video:
            assert all_bytes(video) == undisturbed
        assert relay.num_cut == NUM_CUTS
    assert len(live.engine.opened) == num_videos + 1


def test_a_download_goes_on_where_it_was_cut(live: LiveServer, make_client: MakeClient, tmp_path: Path) -> None:
    with Client(live.url) as client:
        job = client.videos.wait(client.videos.create("a fox", seconds=30).id)
        whole = client.videos.content(job.id)
    chance = random.Random(2)
    cuts = [chance.randint(1, len(whole) // 8) for _ in range(10)]
    with cutting(live.port, cuts) as relay, make_client(relay.url, retries=QUICK) as client:
        path = tmp_path / "fox.mp4"
        assert client.videos.download(job.id, path) == len(whole)
        assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]
        assert relay.num_cut == len(cuts)


def test_events_go_on_behind_the_last_one(live: LiveServer, make_client: MakeClient) -> None:
    with Client(live.url) as client:
        job = client.videos.wait(client.videos.create("a fox", seconds=20).id)
        told = list(client.videos.events(job.id))
    with cutting(live.port, range(400, 1400, 100)) as relay, make_client(relay.url, retries=QUICK) as client:
        assert list(client.videos.events(job.id)) == told
        assert relay.num_cut == 10


def test_a_stream_that_is_not_to_be_resumed_ends_where_it_is_cut(live: LiveServer, make_client: MakeClient) -> None:
    with cutting(live.port, [20_000]) as relay, make_client(relay.url) as client:
        with client.generate(**VIDEO, resume=False) as video, pytest.raises(StreamCut):
            list(video)
        assert 0 < video.next_block < NUM_BLOCKS
        assert not video.info().has_ended or video.info().end_reason == "client_disconnect"


def test_one_that_comes_no_further_says_how_far_it_came(live: LiveServer, make_client: MakeClient) -> None:
    """Each connection brings the init segment again and no block: that is no progress."""
    cuts = [20_000, *[1200] * 1000]
    with cutting(live.port, cuts) as relay, make_client(relay.url, retries=QUICK, give_up_s=0.2) as client:
        with client.generate(**VIDEO) as video, pytest.raises(StreamLost) as lost:
            list(video)
        with Client(live.url) as other:
            other.videos.delete(video.id)  # it lingers: nobody could tell the server that it was left
        assert 2 < relay.num_cut < 1000
    assert lost.value.next_block == video.next_block > 5
    assert lost.value.seconds_done == pytest.approx(0.75 * video.next_block - 3 / 16)
    assert isinstance(lost.value.__cause__, StreamCut)


def test_a_video_that_is_forgotten_meanwhile_is_lost_at_once(live: LiveServer, make_client: MakeClient) -> None:
    with (
        cutting(live.port, [20_000]) as relay,
        make_client(relay.url) as client,
        client.generate(**VIDEO) as video,
        Client(live.url) as other,
        pytest.raises(StreamLost) as lost,
    ):
        other.videos.delete(video.id)
        list(video)
    assert isinstance(lost.value.__cause__, NotFound)


def test_a_job_goes_on_in_the_next_server(make_client: MakeClient, tmp_path: Path) -> None:
    """The first one drains: it ends its streams as if the video had ended."""
    slow, quick = Behaviour(payload_bytes=PAYLOAD_BYTES, block_s=0.05), Behaviour(payload_bytes=PAYLOAD_BYTES)
    with (
        serving(slow, data=str(tmp_path)) as first,
        cutting(first.port) as wire,
        make_client(wire.url, retries=QUICK) as client,
    ):
        job = client.videos.create("a fox", seconds=30)
        with client.watch(job.id) as video:
            shown = iter(video)
            fragments = [next(shown) for _ in range(3)]
            first.stop()
            with serving(quick, data=str(tmp_path)) as second:
                wire.port = second.port
                fragments += list(shown)
                assert video.end is not None and video.end.reason == "completed"
                kept = client.watch(job.id)
                assert list(kept) == fragments and kept.init_segment == video.init_segment
                assert len(client.videos.get(job.id).recoveries) == 1
    assert [fragment.block for fragment in fragments] == list(range(41))
