"""Reads a video to its end, over as many connections as it takes. No input or output here: steps of ``exchange``."""

from collections import deque
from contextlib import suppress
from dataclasses import replace

from hiar_client import requests
from hiar_client.errors import BadStream, HiarError, ServerError, StreamCut, StreamLost, UnexpectedAnswer
from hiar_client.exchange import READ_TIMEOUT_S, Answer, Asking, Broken, Close, Read, Request, Steps, Wait
from hiar_client.fragments import End, Fragment, FragmentParser
from hiar_client.objects import VideoInfo, read_body
from hiar_client.outage import Outage
from hiar_client.requests import FromBlock

_LEAVE_TIMEOUT_S = 5.0
"""Who leaves does not wait long to say so."""


class Reader:
    """One reader of one video. A connection that breaks is followed by another at the first block that is not whole."""

    def __init__(
        self,
        asking: Asking,
        outage: Outage,
        *,
        making: Request | None = None,
        video_id: str = "",
        from_block: FromBlock = 0,
        resumes: bool = True,
        ends_with_us: bool = False,
    ) -> None:
        """
        Args:
            asking: the server.
            outage: how long to try without a whole box.
            making: makes the video and is answered by it; None reads ``video_id`` from ``from_block`` on.
            video_id: empty where ``making`` is given.
            from_block: where to begin.
            resumes: whether a connection that breaks is followed by another.
            ends_with_us: whether the video is to end when it is left before its end and nobody else reads it.
        """
        self.id = video_id
        self.content_type = ""
        self.init_segment = b""
        self.end: End | None = None
        self.next_block = 0
        self.seconds_done = 0.0
        self._asking, self._outage, self._making, self._from_block = asking, outage, making, from_block
        self._resumes, self._ends_with_us = resumes, ends_with_us
        self._answer: Answer | None = None
        self._came = deque[Fragment | End | ServerError]()
        self._next_whole = 0
        """The first block that no connection has brought whole."""
        self._failure: HiarError | None = None
        """What was raised for good."""

    def open(self) -> Steps[None]:
        """Ask for the video; returns with its init segment. Raises ``HiarError``."""
        opening = self._making or (yield from self._first_request())
        try:
            yield from self._connect(opening)
            while not self.init_segment:
                yield from self._receive()
        except HiarError:
            yield from self._hang_up()
            raise

    def _connect(self, opening: Request) -> Steps[None]:
        if self._making is not None or not self._resumes:
            self._attach((yield from self._asking.ask(opening)))
            return
        try:
            self._attach((yield from self._asking.ask_once(opening)))
        except HiarError as error:  # it may wait for its turn for longer than the server lets a reader wait
            yield from self._resume(error)

    def next(self) -> Steps[Fragment | None]:
        """The next fragment; None at the end. Raises ``HiarError``."""
        while self.end is None:
            if not self._came:
                yield from self._receive()
                continue
            came = self._came.popleft()
            if isinstance(came, Fragment):
                self.next_block = came.block + 1
                self.seconds_done += came.duration_s
                return came
            yield from self._hang_up()
            if isinstance(came, ServerError):
                self._failure = came
            elif not (yield from self._goes_on(came)):
                self.end = came
        return None

    def leave(self) -> Steps[None]:
        """Read no more."""
        if self._ends_with_us and self.end is None and self._failure is None:
            with suppress(HiarError):  # it ends without us as well, a little later
                if (yield from self._info(_LEAVE_TIMEOUT_S)).readers <= 1:
                    leaving = replace(requests.steer(self.id, "cancel"), read_timeout_s=_LEAVE_TIMEOUT_S)
                    yield from self._asking.ask_once(leaving)
        self._failure = self._failure or StreamCut("the video was closed")
        yield from self._hang_up()

    def _first_request(self) -> Steps[Request]:
        first = self._from_block if isinstance(self._from_block, int) else (yield from self._newest_block())
        self.next_block = self._next_whole = first
        return requests.stream(self.id, first)

    def _newest_block(self) -> Steps[int]:
        info = yield from self._info()
        return max(info.first_block, info.blocks_done - 1)

    def _info(self, timeout_s: float = READ_TIMEOUT_S) -> Steps[VideoInfo]:
        asked = replace(requests.video(self.id), read_timeout_s=timeout_s)
        return read_body(VideoInfo, (yield from self._asking.ask_once(asked)).body)

    def _attach(self, answer: Answer) -> None:
        self._answer = answer
        self.content_type = answer.headers.get("content-type", "")
        if not self.content_type.startswith("video/mp4"):
            raise UnexpectedAnswer(f"the answer is {self.content_type!r}; is this a HiAR server?")
        self.id = answer.headers.get("x-video-id", self.id)
        self._parser = FragmentParser(self._next_whole)

    def _receive(self) -> Steps[None]:
        if self._failure is not None:
            raise self._failure
        cut = f"the stream ended without notice before block {self._next_whole}"
        if self._answer is not None:
            try:
                data: bytes = yield Read(self._answer)
            except Broken as broken:
                cut = f"the connection broke before block {self._next_whole}: {broken}"
            except GeneratorExit:  # cancelled, and the connection with it; that is no failure
                self._answer = None
                raise
            else:
                if data:
                    self._take(data)
                    return
        yield from self._resume(StreamCut(cut, retryable=True))

    def _take(self, data: bytes) -> None:
        for came in self._parser.feed(data):
            self._came.append(came)
            if isinstance(came, Fragment):
                self._next_whole = came.block + 1
        init = self._parser.init_segment
        if init is not None and self.init_segment not in (b"", init):
            raise BadStream("the video goes on with another init segment")
        self.init_segment = init or self.init_segment
        if self._parser.has_brought:
            self._outage.over()

    def _resume(self, error: HiarError) -> Steps[None]:
        """Read on over a new connection. Raises ``StreamLost``, or ``error`` where nothing came or is to be resumed."""
        yield from self._hang_up()
        if not self._resumes or not self.id:
            raise error
        while True:
            yield Wait((yield from self._pause_s(error)))
            again = replace(requests.stream(self.id, self._next_whole), read_timeout_s=self._outage.read_timeout_s)
            try:
                self._attach((yield from self._asking.ask_once(again)))
            except HiarError as failed:
                error = failed
            else:
                return

    def _pause_s(self, error: HiarError) -> Steps[float]:
        """How long to wait before the next connection. Raises as ``_resume`` does."""
        try:
            return self._outage.wait_s(error)
        except HiarError:
            self._outage.over()
            if error.retryable and (yield from self._stands_still()):
                return self._asking.retries.longest_wait_s
            if self.init_segment:
                raise self._lost(error) from error
            raise

    def _stands_still(self) -> Steps[bool]:
        """Whether nothing can come now: then a server or a proxy may well end a connection, and that is no loss."""
        with suppress(HiarError):
            info = yield from self._info()
            return info.paused or info.status == "queued"
        return False

    def _lost(self, error: HiarError) -> StreamLost:
        message = (
            f"the connection was lost and could not be taken up again: {error.message}; "
            f"{self.seconds_done:.2f} s of video came, up to block {self._next_whole}"
        )
        return StreamLost(message, next_block=self._next_whole, seconds_done=self.seconds_done)

    def _goes_on(self, end: End) -> Steps[bool]:
        """Whether the end was none: a job that its server's end has ended goes on in the next one, which is waited for.

        What ``POST /v1/generate`` made does not outlive its server.
        """
        if end.reason != "drain" or self._making is not None or not self._resumes:
            return False
        stopping = error = HiarError("the server is being stopped", retryable=True)
        while True:
            try:
                yield Wait(self._outage.wait_s(error))
            except HiarError:
                return False
            try:
                info = yield from self._info()
            except HiarError as failed:
                error = failed
                continue
            if info.end_reason != "drain":
                yield from self._resume(stopping)
                return True
            error = stopping

    def _hang_up(self) -> Steps[None]:
        answer, self._answer = self._answer, None
        if answer is not None:
            yield Close(answer)
