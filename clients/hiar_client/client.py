"""A client of HiAR Server: ask for a video, get its fragments while it is generated.

Speaks HTTP only and imports nothing of the server.

    with HiarClient("http://127.0.0.1:8000") as client, client.generate("a red star at night", seconds=5) as video:
        with open("star.mp4", "wb") as file:
            file.write(video.init_segment)
            for fragment in video:
                file.write(fragment.data)
"""

import ipaddress
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from hiar_client.boxes import Box, BoxSplitter, NotMp4, default_ticks, fragment_length, signal, timescale

DEFAULT_URL = "http://127.0.0.1:8000"
_READ_TIMEOUT_S = 180.0
"""Longer than the server waits for a place in its queue; running streams send something every few seconds."""


class HiarError(Exception):
    """The server refused or failed, or cannot be reached. ``status`` is None where there was no HTTP answer."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """One block of video."""

    block: int
    data: bytes
    """A ``moof`` and its ``mdat``; playable after the init segment."""
    num_frames: int
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class End:
    """Why a video ended as it should: ``completed``, ``limit``, ``drain`` or ``cancelled``."""

    reason: str
    last_block: int


class Video:
    """A video that is read while it is generated. Iterate over it once; leaving the ``with`` block leaves it."""

    def __init__(self, response: httpx.Response, first_block: int = 0) -> None:
        self.id = response.headers.get("X-Video-Id", "")
        """What ``HiarClient.video``, ``read`` and the others know it by."""
        self.content_type = response.headers.get("Content-Type", "")
        if not self.content_type.startswith("video/mp4"):
            raise HiarError("unexpected_answer", f"the answer is {self.content_type!r}; is this a HiAR server?")
        self.end: End | None = None
        """Set when the iteration has ended."""
        self.next_block = first_block
        """The first block that has not been yielded: where ``HiarClient.read`` goes on if the stream is cut."""
        self._response = response
        self._boxes = _boxes(response)
        self.init_segment, moov = self._read_init()
        self._timescale, self._default_ticks = timescale(moov), default_ticks(moov)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Fragment]:
        """Yield fragments as they arrive. Raises ``HiarError`` if the video does not end as it should."""
        moof: Box | None = None
        for box in self._boxes:
            if box.kind == "moof":
                moof = box
            elif box.kind == "mdat" and moof is not None:
                fragment = self._fragment(self.next_block, moof, box)
                self.next_block += 1
                yield fragment
            elif payload := signal(box):
                self._take_signal(payload)
        if self.end is None:
            raise HiarError(
                "stream_cut", f"the stream ended without notice before block {self.next_block}", retryable=True
            )

    def close(self) -> None:
        """Leave the stream. The server then stops generating, unless others read or it was told to linger."""
        self._response.close()

    def _read_init(self) -> tuple[bytes, Box]:
        data = b""
        for box in self._boxes:
            data += box.data
            if box.kind == "moov":
                return data, box
        raise HiarError("stream_cut", "the stream ended before its init segment", retryable=True)

    def _fragment(self, block: int, moof: Box, mdat: Box) -> Fragment:
        num_frames, ticks = fragment_length(moof, self._default_ticks)
        duration_s = ticks / self._timescale
        return Fragment(block=block, data=moof.data + mdat.data, num_frames=num_frames, duration_s=duration_s)

    def _take_signal(self, payload: dict[str, Any]) -> None:
        if payload.get("type") == "end":
            self.end = End(reason=payload["reason"], last_block=payload["last_block"])
        elif payload.get("type") == "error":
            raise HiarError(payload["code"], payload["message"], retryable=payload["retryable"])


class HiarClient:
    """One server. All methods raise ``HiarError``."""

    def __init__(self, base_url: str = DEFAULT_URL, key: str | None = None) -> None:
        """``key``: where the server asks for one."""
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise HiarError("bad_url", f"{base_url!r} is not an address such as {DEFAULT_URL}")
        timeout = httpx.Timeout(10.0, read=_READ_TIMEOUT_S)
        # A proxy from the environment cannot reach this machine's own loopback.
        trust_env = not _is_loopback(base_url)
        self.base_url = base_url.rstrip("/")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout, trust_env=trust_env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def generate(
        self,
        prompt: str | Sequence[tuple[float, str]],
        *,
        seconds: float | None = None,
        seed: int | None = None,
        size: str | None = None,
        fps: int | None = None,
        pace: str | None = None,
        quality: str | None = None,
        priority: int | None = None,
        model: str | None = None,
        linger_seconds: float | None = None,
    ) -> Video:
        """Ask for a video and read it; returns when its first block exists.

        A list prompt holds (at_seconds, text) pairs. ``linger_seconds``: how long it lives on when nobody reads it.
        """
        asked = {
            "prompt": prompt
            if isinstance(prompt, str)
            else [{"at_seconds": at, "prompt": text} for at, text in prompt],
            "seconds": seconds,
            "seed": seed,
            "size": size,
            "fps": fps,
            "pace": pace,
            "quality": quality,
            "priority": priority,
            "model": model,
            "linger_seconds": linger_seconds,
        }
        body = {name: value for name, value in asked.items() if value is not None}
        return _reading(self._send("POST", "/v1/generate", body, stream=True))

    def read(self, video_id: str, from_block: int = 0) -> Video:
        """Read a video that runs or is kept, from a block on; any number may read one video."""
        path = f"/v1/videos/{video_id}/stream?from={from_block}"
        return _reading(self._send("GET", path, stream=True), from_block)

    def change_prompt(self, video_id: str, prompt: str) -> int:
        """Change what a running video shows. Returns the first block that follows the new prompt."""
        answer = self._send("POST", f"/v1/videos/{video_id}/prompt", {"prompt": prompt}).json()
        return int(answer["block"])

    def video(self, video_id: str) -> dict[str, Any]:
        """Tell how a video is."""
        return self._object("GET", f"/v1/videos/{video_id}")

    def videos(self, limit: int = 20) -> list[dict[str, Any]]:
        """List the newest videos."""
        videos: list[dict[str, Any]] = self._object("GET", f"/v1/videos?limit={limit}")["data"]
        return videos

    def cancel(self, video_id: str) -> None:
        """End a video at its next block; what was made can be read for a while."""
        self._send("POST", f"/v1/videos/{video_id}/cancel")

    def delete(self, video_id: str) -> None:
        """End a video at once, if it runs, and have it forgotten."""
        self._send("DELETE", f"/v1/videos/{video_id}")

    def models(self) -> list[dict[str, Any]]:
        """List the models that can be asked for."""
        models: list[dict[str, Any]] = self._object("GET", "/v1/models")["data"]
        return models

    def capabilities(self) -> dict[str, Any]:
        """Tell what the server can do and how busy it is."""
        return self._object("GET", "/v1/capabilities")

    def _object(self, method: str, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._send(method, path).json()
        return answer

    def _send(self, method: str, path: str, body: Any = None, *, stream: bool = False) -> httpx.Response:
        # Written here, in ASCII: text that is not valid Unicode then reaches the server, which says what is wrong.
        content = json.dumps(body).encode("ascii") if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        request = self._http.build_request(method, path, content=content, headers=headers)
        try:
            response = self._http.send(request, stream=stream)
            if not response.is_success:
                response.read()
        except httpx.TransportError as error:
            raise _unreachable(self.base_url, error) from error
        if not response.is_success:
            raise _refusal(response)
        return response


def _reading(response: httpx.Response, first_block: int = 0) -> Video:
    try:
        return Video(response, first_block)
    except HiarError:
        response.close()
        raise


def _boxes(response: httpx.Response) -> Iterator[Box]:
    splitter = BoxSplitter()
    try:
        for data in response.iter_raw():
            yield from splitter.feed(data)
    except httpx.TransportError as error:
        raise HiarError("stream_cut", f"the connection broke: {error}", retryable=True) from error
    except NotMp4 as error:
        raise HiarError("bad_stream", f"the answer is not an MP4 stream: {error}") from error


def _unreachable(url: str, error: httpx.TransportError) -> HiarError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        message = f"no server answers at {url}; start one with 'hiar-server' or give another --url"
    else:
        message = f"the connection to {url} broke before an answer came: {error or type(error).__name__}"
    return HiarError("unreachable", message, retryable=True)


def _refusal(response: httpx.Response) -> HiarError:
    try:
        error = response.json()["error"]
        code, message, param = error["code"], error["message"], error.get("param")
    except (ValueError, KeyError, TypeError):
        code, message, param = "unexpected_answer", f"HTTP {response.status_code}; is this a HiAR server?", None
    retry_after = response.headers.get("Retry-After", "")
    return HiarError(
        code,
        message,
        param=param,
        status=response.status_code,
        retryable=bool(retry_after),
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
