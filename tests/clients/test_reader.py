"""What a reader makes of what it is sent: its steps, without a network."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

import hiar_client.wire
from hiar_client import (
    AsyncClient,
    BadStream,
    Client,
    Retries,
    StreamCut,
    StreamLost,
    UnexpectedAnswer,
    VideoFailed,
    requests,
)
from hiar_client.boxes import SIGNAL_UUID
from hiar_client.exchange import Answer, Asking, Broken, Close, Read, Request, Send, Steps, Wait, pause_s
from hiar_client.outage import Outage
from hiar_client.reader import Reader
from tests.clients.both import MakeClient
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.small_mp4 import box, fragment_bytes, init_segment

_T = TypeVar("_T")
HEADERS = {"content-type": 'video/mp4; codecs="avc1"', "x-video-id": "video_1"}
GIVE_UP_S = 10.0


def fragment(block: int) -> bytes:
    return fragment_bytes(block, 12, 12 * block, 16, b"payload")


def said(**payload: Any) -> bytes:
    return box(b"uuid", SIGNAL_UUID, json.dumps(payload).encode())


END = said(type="end", reason="completed", last_block=1)
DRAIN = said(type="end", reason="drain", last_block=0)


class Served:
    """Answers in order: a stream is its pieces, behind which the connection breaks unless the last one is empty."""

    def __init__(self, *answers: list[bytes] | Answer | Broken) -> None:
        self._answers = list(answers)
        self.answer_of: Callable[[str], list[bytes] | Answer] | None = None
        """Asked when the others are used up: by path."""
        self.now_s = 0.0
        self.asked: list[str] = []
        self.requests: list[Request] = []
        self.num_open = 0

    def run(self, steps: Steps[_T]) -> _T:
        try:
            step = next(steps)
            while True:
                try:
                    result = self._take(step)
                except Broken as broken:
                    step = steps.throw(broken)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            value: _T = end.value
            return value

    def _take(self, step: Send | Read | Close | Wait) -> Any:
        match step:
            case Send(request):
                self.requests.append(request)
                self.asked.append(f"{request.method} {request.path}")
                answer = self._answers.pop(0) if self._answers or not self.answer_of else self.answer_of(request.path)
                if isinstance(answer, Broken):
                    raise answer
                if isinstance(answer, list):
                    self.num_open += 1
                    answer = Answer(status=200, headers=HEADERS, source=iter(answer))
                return answer
            case Read(answer):
                piece = next(answer.source, None)
                if piece is None:
                    raise Broken("reset")
                return piece
            case Close():
                self.num_open -= 1
            case Wait(seconds):
                self.now_s += seconds


@dataclass
class Reading:
    served: Served
    reader: Reader

    def blocks(self) -> list[int]:
        found = []
        while (came := self.served.run(self.reader.next())) is not None:
            found.append(came.block)
        assert self.served.num_open == 0
        return found


def reading(*answers: list[bytes] | Answer | Broken, watches: bool = False, resumes: bool = True) -> Reading:
    served = Served(*answers)
    asking = Asking("http://there", Retries(), lambda: served.now_s)
    making = None if watches else requests.generate("a fox", {}, resume=resumes)[0]
    outage = Outage(asking.retries, GIVE_UP_S, lambda: served.now_s)
    reader = Reader(asking, outage, making=making, video_id="video_1" if watches else "", resumes=resumes)
    served.run(reader.open())
    return Reading(served, reader)


def info(**fields: Any) -> Answer:
    told: dict[str, Any] = dict.fromkeys(hiar_client.VideoInfo.__dataclass_fields__)
    told |= {"prompts": [], "recoveries": [], "readers": 1, "first_block": 0, "blocks_done": 1, **fields}
    told["urls"] = {"content": "", "stream": "", "hls": "", "events": ""}
    return Answer(status=200, headers={}, body=json.dumps(told).encode())


def test_pieces_may_be_cut_anywhere() -> None:
    whole = init_segment() + fragment(0) + fragment(1) + END
    made = reading([whole[at : at + 7] for at in range(0, len(whole), 7)])
    assert made.blocks() == [0, 1] and made.reader.init_segment == init_segment()


def test_a_fragment_that_was_cut_is_read_again_whole() -> None:
    first = init_segment() + fragment(0) + fragment(1)[:-1]
    made = reading([first], Broken("refused", is_refused=True), [init_segment(), fragment(1) + END])
    assert made.blocks() == [0, 1]
    assert made.served.asked == ["POST /v1/generate", *["GET /v1/videos/video_1/stream?from=1"] * 2]


def test_only_the_end_was_lost() -> None:
    made = reading([init_segment() + fragment(0) + fragment(1)], [init_segment(), END])
    assert made.blocks() == [0, 1] and made.reader.end is not None


def test_another_init_segment_is_another_video() -> None:
    made = reading([init_segment() + fragment(0)], [init_segment().replace(b"iso5", b"iso6") + fragment(1)])
    with pytest.raises(BadStream, match="another init segment"):
        made.blocks()


def test_what_comes_before_a_failure_is_given_out() -> None:
    failure = said(type="error", code="new_code", message="so it is", retryable=False, last_block=0)
    made = reading([init_segment() + fragment(0) + failure])
    assert made.served.run(made.reader.next()) is not None
    with pytest.raises(hiar_client.ServerError, match="so it is") as caught:
        made.blocks()
    assert caught.value.code == "new_code" and not isinstance(caught.value, VideoFailed)
    assert made.served.num_open == 0


def test_tries_that_bring_nothing_become_slow_and_end() -> None:
    """However many there are within the time."""
    made = reading([init_segment() + fragment(0)], *[[init_segment()]] * 3, *[Broken("reset")] * 2000)
    with pytest.raises(StreamLost):
        made.blocks()
    assert 5 < len(made.served.asked) < 30 and made.served.now_s <= GIVE_UP_S
    assert pause_s(Retries(), 5000, None) <= 4


@pytest.mark.parametrize("fields", [{"paused": True, "status": "in_progress"}, {"paused": False, "status": "queued"}])
def test_a_video_that_stands_still_is_not_lost(fields: dict[str, Any]) -> None:
    """A proxy may give up waiting for its next block, again and again."""
    made = reading([init_segment() + fragment(0)])

    def answer(path: str) -> list[bytes] | Answer:
        if "stream" not in path:
            return info(**fields)
        made.served.now_s += 30
        late = made.served.now_s > 1000
        return [init_segment() + fragment(1) + END] if late else Answer(status=504, headers={}, body=b"<html>")

    made.served.answer_of = answer
    assert made.blocks() == [0, 1]


def test_a_video_that_waits_for_its_turn_can_be_watched() -> None:
    body = b'{"error": {"code": "overloaded", "message": "no place became free"}}'
    refused = Answer(status=429, headers={"retry-after": "6"}, body=body)
    made = reading(refused, refused, info(status="queued"), [init_segment() + fragment(0) + END], watches=True)
    assert made.blocks() == [0]
    with pytest.raises(hiar_client.Overloaded):
        reading(refused, refused, info(status="in_progress"), watches=True)


def test_a_stream_of_a_server_that_stops_has_ended() -> None:
    made = reading([init_segment() + fragment(0) + DRAIN])
    assert made.blocks() == [0] and made.reader.end is not None and made.reader.end.reason == "drain"
    assert len(made.served.asked) == 1


def test_a_job_of_a_server_that_stops_is_waited_for() -> None:
    stopping, gone = info(status="cancelled", end_reason="drain"), Broken("refused", is_refused=True)
    going_on = info(status="in_progress", end_reason=None)
    rest = [init_segment(), fragment(1) + END]
    made = reading([init_segment() + fragment(0) + DRAIN], stopping, gone, going_on, rest, watches=True)
    assert made.blocks() == [0, 1] and made.reader.end is not None and made.reader.end.reason == "completed"


@pytest.mark.parametrize("watches", [True, False])
def test_a_video_that_does_not_come_back_has_ended(watches: bool) -> None:
    not_found = Answer(status=404, headers={}, body=b'{"error": {"code": "not_found", "message": "none"}}')
    made = reading([init_segment() + fragment(0) + DRAIN], not_found, watches=watches)
    assert made.blocks() == [0] and made.reader.end is not None and made.reader.end.reason == "drain"
    refused = [Broken("refused", is_refused=True)] * 99
    late = reading([init_segment() + fragment(0) + DRAIN], *refused, watches=watches)
    assert late.blocks() == [0] and late.served.now_s <= GIVE_UP_S


def test_an_answer_that_is_no_video_is_closed() -> None:
    served = Served(Answer(status=200, headers={"content-type": "text/html"}))
    served.num_open = 1
    asking = Asking("http://there", Retries(), lambda: served.now_s)
    reader = Reader(asking, Outage(asking.retries, GIVE_UP_S), video_id="video_1")
    with pytest.raises(UnexpectedAnswer):
        served.run(reader.open())
    assert served.num_open == 0


@contextmanager
def silent(data: bytes) -> Iterator[str]:
    """A server that answers with so much of a stream and then says nothing more."""
    head = b"".join(f"{name}: {text}\r\n".encode() for name, text in HEADERS.items())
    over = threading.Event()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 99999\r\n\r\n" + data)
            over.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join()


def test_a_connection_that_is_silent_for_long_is_dead(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends something all the time: so nobody waits as long as for the first block."""
    monkeypatch.setattr(hiar_client.wire, "SILENCE_TIMEOUT_S", 0.1)
    with silent(init_segment() + fragment(0)) as url, make_client(url) as client:
        video = client.watch("video_1", resume=False)
        assert next(iter(video)).block == 0
        with pytest.raises(StreamCut):
            list(video)


def test_a_task_that_waits_for_a_fragment_can_be_cancelled_and_loses_none() -> None:
    async def read(url: str) -> list[int]:
        found: list[int] = []
        num_cancelled = 0
        async with AsyncClient(url) as client, client.generate("a fox", seconds=5, pace="fast") as video:
            await video.pause()
            while video.end is None:
                try:
                    async with asyncio.timeout(0.1 if num_cancelled < 3 else None):
                        async for fragment in video:
                            found.append(fragment.block)
                except TimeoutError:
                    num_cancelled += 1
                    if num_cancelled == 3:
                        await video.resume()
        return found

    with serving(Behaviour(block_s=0.05)) as live:
        assert asyncio.run(read(live.url)) == list(range(7))


def test_a_new_connection_that_is_silent_is_followed_by_another() -> None:
    served = Served(Broken("timed out"), Broken("timed out"), [init_segment() + fragment(1) + END])
    outage = Outage(Retries(), 60, lambda: served.now_s)
    reader = Reader(Asking("http://there", Retries()), outage, video_id="video_1", from_block=1)
    served.run(reader.open())
    assert [request.read_timeout_s for request in served.requests] == [180, 20, 60]


def test_leaving_does_not_wait_for_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiar_client.reader, "_LEAVE_TIMEOUT_S", 0.1)
    with silent(init_segment() + fragment(0)) as url, Client(url) as client, client.generate("a fox") as video:
        assert next(iter(video)).block == 0
