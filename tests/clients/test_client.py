"""Both clients against the real HTTP server on workers that need no process."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine import EngineOptions
from hiar_client import (
    Client,
    Conflict,
    End,
    Gone,
    HiarError,
    InvalidRequest,
    NotFound,
    Overloaded,
    Retries,
    StillRunning,
    Unauthorized,
    WorkerLost,
)
from tests.clients.both import MakeClient
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.server.keyed_server import ALICE, BOB, line
from tests.server.live_server import LiveServer

ONCE = Retries(attempts=1)


@pytest.fixture(scope="module")
def slow() -> Iterator[LiveServer]:
    with serving(Behaviour(block_s=0.02), engine=EngineOptions(max_videos=8)) as server:
        yield server


def test_a_video_comes_in_fragments_with_their_lengths(shared: LiveServer, make_client: MakeClient) -> None:
    with make_client(shared.url) as client, client.generate("a fox", seconds=2, fps=16) as video:
        fragments = list(video)
        assert [fragment.block for fragment in fragments] == [0, 1, 2]
        assert [fragment.num_frames for fragment in fragments] == [9, 12, 11]
        assert sum(fragment.duration_s for fragment in fragments) == 2.0
        assert video.end == End(reason="completed", last_block=2)
        assert (video.init_segment[4:8], video.next_block) == (b"ftyp", 3)
        assert video.content_type.startswith('video/mp4; codecs="')
        assert list(video) == []


def test_every_field_reaches_the_server(shared: LiveServer, make_client: MakeClient) -> None:
    with make_client(shared.url) as client:
        asked = client.videos.create(
            [(0, "a fox"), (1, "a wolf")],
            seconds=2,
            seed=7,
            size="832x480",
            fps=24,
            pace="realtime",
            quality="high",
            priority=0,
            model="instant",
        )
        request = shared.engine.opened[-1].request
        assert [(prompt.at_s, prompt.text) for prompt in request.prompts] == [(0, "a fox"), (1, "a wolf")]
        assert (request.seconds, request.seed, request.fps, request.pace, request.quality) == (
            2,
            7,
            24,
            "realtime",
            "high",
        )
        told = client.videos.wait(asked.id)
        assert (told.size, told.model, told.status, told.has_ended) == ("832x480", "instant", "completed", True)


def test_a_refusal_names_the_field(shared: LiveServer, make_client: MakeClient) -> None:
    with make_client(shared.url) as client, pytest.raises(InvalidRequest) as caught:
        client.generate("a fox", size="8x8", seed=-1)
    error = caught.value
    assert (error.code, error.param, error.status) == ("invalid_request", "seed", 400)
    assert error.request_id is not None and error.request_id.startswith("r_")


@pytest.mark.parametrize(("prompt", "seconds"), [("\udcff", 1.0), ("a fox", float("nan"))])
def test_values_that_json_cannot_hold_are_refused_by_the_server(
    shared: LiveServer, prompt: str, seconds: float
) -> None:
    with Client(shared.url) as client, pytest.raises(InvalidRequest):
        client.generate(prompt, seconds=seconds)


def test_a_word_that_is_no_field_is_refused_here(shared: LiveServer) -> None:
    with Client(shared.url) as client, pytest.raises(TypeError, match="second"):
        client.generate("a fox", second=1)  # type: ignore[call-arg]


def test_overload_says_when_to_come_back() -> None:
    with (
        serving(engine=EngineOptions(max_videos=1, max_queue=0)) as live,
        live.holding(),
        Client(live.url, retries=ONCE) as client,
        pytest.raises(Overloaded) as caught,
    ):
        client.generate("a fox")
    assert (caught.value.retryable, caught.value.retry_after_s) == (True, 10.0)


def test_a_failure_on_the_way_is_typed_and_stays(make_client: MakeClient) -> None:
    behaviour = Behaviour(fail_at=2, failure=engine.WorkerLost("a worker died"))
    with serving(behaviour) as live, make_client(live.url) as client, client.generate("a fox") as video:
        with pytest.raises(WorkerLost, match="a worker died") as caught:
            list(video)
        assert caught.value.retryable and video.next_block == 2
        with pytest.raises(WorkerLost):
            list(video)
        assert client.videos.wait(video.id).status == "failed"


class TestLeaving:
    """What becomes of a video that is closed before its end."""

    def test_it_ends_though_it_would_linger_for_a_lost_connection(
        self, slow: LiveServer, make_client: MakeClient
    ) -> None:
        with make_client(slow.url) as client:
            with client.generate("a fox") as video:
                next(iter(video))
                assert video.info().status == "in_progress"
            assert client.videos.wait(video.id, timeout=5).end_reason == "cancelled"
            with pytest.raises(HiarError, match="closed"):
                list(video)

    def test_it_goes_on_for_others(self, slow: LiveServer, make_client: MakeClient) -> None:
        with make_client(slow.url) as client:
            with client.generate("a fox") as video:
                other = client.watch(video.id, "live")
            shown = iter(other)
            at = next(shown).block
            assert [next(shown).block for _ in range(3)] == [at + 1, at + 2, at + 3]
            assert client.videos.cancel(video.id).end_reason == "cancelled"
            list(shown)
            assert other.end is not None and other.end.reason == "cancelled"

    def test_it_goes_on_where_it_was_told_to_linger(self, slow: LiveServer, make_client: MakeClient) -> None:
        with make_client(slow.url) as client:
            with client.generate("a fox", linger_seconds=60) as video:
                next(iter(video))
            assert not client.videos.get(video.id).has_ended
            client.videos.delete(video.id)

    def test_one_whose_server_is_gone_is_left_without_an_error(self, make_client: MakeClient) -> None:
        with serving(Behaviour(block_s=0.05)) as live, make_client(live.url) as client, client.generate("x") as video:
            next(iter(video))
            live.stop()


def test_steering(slow: LiveServer, make_client: MakeClient) -> None:
    with make_client(slow.url) as client, client.generate("a fox", pace="realtime") as video:
        next(iter(video))
        change = video.change_prompt("a wolf")
        assert change.block >= 1 and change.at_seconds == pytest.approx(0.75 * change.block - 3 / 16)
        assert video.pause().paused and not video.resume().paused
        assert client.videos.pause(video.id).paused and not client.videos.resume(video.id).paused
        later = client.videos.prompt(video.id, "a bear")
        assert later.block >= change.block
        prompts = [prompt.prompt for prompt in video.info().prompts]
        assert (prompts[0], prompts[-1]) == ("a fox", "a bear")  # one that holds for no block is not told of
        assert video.cancel().end_reason == "cancelled"
        list(video)
        assert video.end is not None and video.end.reason == "cancelled"
        with pytest.raises(Conflict):
            video.pause()


def test_events_tell_what_happens(slow: LiveServer, make_client: MakeClient) -> None:
    with make_client(slow.url) as client, client.generate("a fox", seconds=2) as video:
        told = list(video.events())
        assert told == list(client.videos.events(video.id))
        kinds = [event.type for event in told]
        assert kinds[-4:] == ["block", "block", "block", "ended"] and {"prompt", "started"} <= set(kinds)
        first, last = next(event for event in told if event.type == "block"), told[-1]
        assert (first.block, first.blocks_done, first.seconds_done, first.id) == (0, 1, 0.5625, video.id)
        assert last.type == "ended" and (last.end_reason, last.blocks_done) == ("completed", 3)


def test_listening_can_end_before_the_video_does(slow: LiveServer, make_client: MakeClient) -> None:
    with make_client(slow.url) as client, client.generate("a fox") as video:
        for event in video.events():
            if event.type == "block":
                break
        assert not video.info().has_ended


def test_reading_from_a_block_on(shared: LiveServer, make_client: MakeClient) -> None:
    with make_client(shared.url) as client:
        job = client.videos.wait(client.videos.create("a fox", seconds=5).id)
        with client.watch(job.id) as video:
            fragments = list(video)
        for from_block in (0, 3, 6):
            with client.watch(job.id, from_block) as rest:
                assert rest.next_block == from_block and list(rest) == fragments[from_block:]
        with client.watch(job.id, "live") as newest:
            assert list(newest) == fragments[-1:]
        with pytest.raises(Gone):
            client.watch(job.id, 9)
        with pytest.raises(NotFound):
            client.watch("video_x")


def test_a_job_from_its_request_to_its_end(shared: LiveServer, make_client: MakeClient, tmp_path: Path) -> None:
    with make_client(shared.url) as client:
        asked = client.videos.create("a fox", seconds=1, seed=7)
        assert asked.object == "video" and asked.prompts[0].prompt == "a fox"
        done = client.videos.wait(asked.id, timeout=10)
        assert done == client.videos.get(asked.id) and (done.progress, done.blocks_done) == (100, 2)
        assert client.videos.content(done.id)[4:8] == b"ftyp"
        other = client.videos.remix(done.id, "a wolf")
        assert (other.remixed_from_video_id, other.seed) == (done.id, 7)
        longer = client.videos.extend(done.id, 1, "a wolf")
        assert longer.extended_from_video_id == done.id
        client.videos.wait(longer.id)
        gone = client.videos.delete(done.id)
        assert gone.deleted and gone.id == done.id
        with pytest.raises(NotFound):
            client.videos.download(done.id, tmp_path / "fox.mp4")
        assert list(tmp_path.iterdir()) == []


def test_waiting_ends_when_the_time_is_over(slow: LiveServer, make_client: MakeClient) -> None:
    with make_client(slow.url) as client:
        job = client.videos.create("a fox", seconds=3600, pace="realtime")
        with pytest.raises(StillRunning):
            client.videos.wait(job.id, timeout=0.01)
        client.videos.delete(job.id)


def test_a_list_is_read_page_by_page(make_client: MakeClient) -> None:
    with serving() as live, make_client(live.url) as client:
        made = [client.videos.create(f"video {n}", seconds=1).id for n in range(5)]
        page = client.videos.list(limit=2)
        assert [video.id for video in page.data] == made[:2:-1] and page.has_more
        assert [video.id for video in client.videos.list(2, after=page.last_id).data] == made[2:0:-1]
        assert [video.id for video in client.videos.all("asc", page_size=2)] == made
        assert [video.id for video in client.videos.all()] == made[::-1]


def test_models_and_capabilities(shared: LiveServer, make_client: MakeClient) -> None:
    with make_client(shared.url) as client:
        (model,) = client.models.list()
        assert client.models.get(model.id) == model and model.id == "instant"
        told = client.capabilities()
        assert (told.state, told.model, told.sizes) == ("ready", "instant", model.sizes)
        assert told.facts is not None and told.facts.workers[0].device == "cpu"
        with pytest.raises(NotFound):
            client.models.get("gpt-5/../x")


def test_keys(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line("alice", ALICE) + line("bob", BOB))
    with serving(keys=path) as live:
        with make_client(live.url) as nobody, pytest.raises(Unauthorized):
            nobody.videos.list()
        with make_client(live.url, ALICE) as alice, make_client(live.url, key=BOB) as bob:
            with alice.generate("a fox", seconds=1) as video:
                list(video)
            assert [one.id for one in alice.videos.list().data] == [video.id] and bob.videos.list().data == ()
            with pytest.raises(NotFound):
                bob.videos.get(video.id)


@pytest.mark.parametrize(("url", "code"), [("http://127.0.0.1:1", "unreachable"), ("127.0.0.1", "bad_url")])
def test_no_server(url: str, code: str, make_client: MakeClient) -> None:
    with pytest.raises(HiarError) as caught, make_client(url) as client:
        client.models.list()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html\r\n\r\nhi", "unexpected_answer"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nhi", "unexpected_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Type: video/mp4\r\n\r\n<!doctype", "bad_stream"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Type: video/mp4\r\n\r\n\0\0\0\x08free", "stream_cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nContent-Type: video/mp4\r\n\r\n\0\0\0\x08free", "stream_cut"),
        (b"", "unreachable"),
    ],
)
def test_what_is_not_our_server(answer: bytes, code: str, make_client: MakeClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer_once() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    answering = threading.Thread(target=answer_once, daemon=True)
    answering.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with make_client(url, retries=ONCE) as client, pytest.raises(HiarError) as caught:
        client.generate("a fox")
    answering.join()
    listener.close()
    assert caught.value.code == code
