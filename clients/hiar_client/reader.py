"""Reads a video to its end, over as many connections as it takes. No input or output here: steps of ``exchange``."""

import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from hiar_client import requests
from hiar_client.errors import BadStream, HiarError, ServerError, StreamCut, StreamLost, UnexpectedAnswer
from hiar_client.exchange import Answer, Asking, Broken, Close, Read, Request, Steps, Wait, pause_s
from hiar_client.fragments import End, Fragment, FragmentParser
from hiar_client.objects import VideoInfo, read
from hiar_client.requests import FromBlock

GIVE_UP_S = 60.0


class Reader:
    """One reader of one video. A connection that breaks is followed by another at the first block that is not whole."""

    def __init__(
        self,
        asking: Asking,
        opening: Request | None,
        *,
        video_id: str = "",
        from_block: FromBlock = 0,
        resumes: bool = True,
        ends_with_us: bool = False,
        give_up_s: float = GIVE_UP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            asking: the server.
            opening: what the first connection asks; None reads ``video_id`` from ``from_block`` on.
            video_id: known only behind the first answer where ``opening`` makes the video.
            from_block: where to begin.
            resumes: whether a connection that breaks is followed by another.
            ends_with_us: whether the video is to end when it is left before its end and nobody else reads it.
            give_up_s: how long to try without a whole box.
            clock: of the tries.
        """
        self.id = video_id
        self.content_type = ""
        self.init_segment = b""
        self.end: End | None = None
        self.next_block = 0
        self.seconds_done = 0.0
        self._asking, self._opening, self._from_block = asking, opening, from_block
        self._resumes, self._ends_with_us = resumes, ends_with_us
        self._give_up_s, self._clock = give_up_s, clock
        self._answer: Answer | None = None
        self._came = deque[Fragment | End | ServerError]()
        self._next_whole = 0
        """The first block that no connection has brought whole."""
        self._lost_at_s: float | None = None
        """Since when no box came, if the last connection broke."""
        self._num_failed = 0
        self._has_failed = False

    def open(self) -> Steps[None]:
        """Ask for the video; returns with its init segment. Raises ``HiarError``."""
        opening = self._opening or (yield from self._first_request())
        try:
            self._attach((yield from self._asking.ask(opening)))
            while not self.init_segment:
                yield from self._receive()
        except HiarError:
            yield from self._hang_up()
            raise

    def next(self) -> Steps[Fragment | None]:
        """The next fragment; None at the end. Raises ``HiarError``."""
        while not self._came:
            if self.end is not None:
                return None
            yield from self._receive()
        came = self._came.popleft()
        if isinstance(came, ServerError):
            self._has_failed = True
            yield from self._hang_up()
            raise came
        if isinstance(came, End):
            self.end = came
            yield from self._hang_up()
            return None
        self.next_block = came.block + 1
        self.seconds_done += came.duration_s
        return came

    def leave(self) -> Steps[None]:
        """Read no more."""
        if self._ends_with_us and self.end is None and not self._has_failed:
            with suppress(HiarError):  # it ends without us as well, a little later
                if (yield from self.info()).readers <= 1:
                    yield from self._asking.ask_once(requests.steer(self.id, "cancel"))
        self._ends_with_us = False
        yield from self._hang_up()

    def info(self) -> Steps[VideoInfo]:
        """How the video is."""
        return read(VideoInfo, json.loads((yield from self._asking.ask_once(requests.video(self.id))).body))

    def _first_request(self) -> Steps[Request]:
        first = self._from_block if isinstance(self._from_block, int) else (yield from self._newest_block())
        self.next_block = self._next_whole = first
        return requests.stream(self.id, first)

    def _newest_block(self) -> Steps[int]:
        info = yield from self.info()
        return max(info.first_block, info.blocks_done - 1)

    def _attach(self, answer: Answer) -> None:
        self._answer = answer
        self.content_type = answer.headers.get("content-type", "")
        if not self.content_type.startswith("video/mp4"):
            raise UnexpectedAnswer(f"the answer is {self.content_type!r}; is this a HiAR server?")
        self.id = answer.headers.get("x-video-id", self.id)
        self._parser = FragmentParser(self._next_whole)

    def _receive(self) -> Steps[None]:
        assert self._answer is not None, "it was not opened"
        try:
            data: bytes = yield Read(self._answer)
        except Broken as broken:
            cut = StreamCut(f"the connection broke before block {self._next_whole}: {broken}", retryable=True)
            yield from self._resume(cut)
            return
        if data:
            self._take(data)
        else:
            cut = StreamCut(f"the stream ended without notice before block {self._next_whole}", retryable=True)
            yield from self._resume(cut)

    def _take(self, data: bytes) -> None:
        for came in self._parser.feed(data):
            self._came.append(came)
            if isinstance(came, Fragment):
                self._next_whole = came.block + 1
        init = self._parser.init_segment
        if init is not None and self.init_segment not in (b"", init):
            raise BadStream("the video goes on with another init segment")
        self.init_segment = init or self.init_segment
        if self._parser.num_boxes:
            self._lost_at_s, self._num_failed = None, 0

    def _resume(self, error: HiarError) -> Steps[None]:
        yield from self._hang_up()
        if not self._resumes or not self.id:
            raise error
        while True:
            yield Wait(self._pause_s(error))
            try:
                self._attach((yield from self._asking.ask_once(requests.stream(self.id, self._next_whole))))
            except HiarError as failed:
                error = failed
            else:
                return

    def _pause_s(self, error: HiarError) -> float:
        """How long to wait before the next connection; there is no wait before the first. Raises ``StreamLost``."""
        now_s = self._clock()
        self._lost_at_s = now_s if self._lost_at_s is None else self._lost_at_s
        wait_s = pause_s(self._asking.retries, self._num_failed, error.retry_after_s) if self._num_failed else 0.0
        self._num_failed += 1
        if not error.retryable:
            raise self._lost(f"the connection was lost, and then: {error.message}") from error
        if now_s + wait_s > self._lost_at_s + self._give_up_s:
            raise self._lost(f"the connection was lost, and no other within {self._give_up_s:g} s") from error
        return wait_s

    def _lost(self, message: str) -> StreamLost:
        return StreamLost(message, next_block=self._next_whole, seconds_done=self.seconds_done)

    def _hang_up(self) -> Steps[None]:
        answer, self._answer = self._answer, None
        if answer is not None:
            yield Close(answer)
