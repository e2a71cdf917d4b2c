"""Takes the steps of ``exchange`` over HTTP, one after the other. Knows nothing of videos."""

import ipaddress
import time
from typing import TypeVar, cast
from urllib.parse import urlsplit

import httpx

from hiar_client.errors import BadUrl
from hiar_client.exchange import (
    SILENCE_TIMEOUT_S,
    Answer,
    Broken,
    Close,
    Read,
    Request,
    Send,
    Step,
    Steps,
)

DEFAULT_URL = "http://127.0.0.1:8000"
_CONNECT_TIMEOUT_S = 10.0
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""A video that is read has a connection of its own, however many there are."""
_T = TypeVar("_T")


class Wire:
    """Connections to one server."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises ``BadUrl``."""
        self._key = key
        self._http = httpx.Client(base_url=checked(url), limits=LIMITS, trust_env=trusts_environment(url))

    def run(self, steps: Steps[_T]) -> _T:
        """Take steps to their end. Returns and raises what they do."""
        try:
            step = next(steps)
            while True:
                try:
                    result = self._take(step)
                except httpx.TransportError as error:
                    step = steps.throw(broken(error))
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return cast(_T, end.value)
        finally:
            steps.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _take(self, step: Step) -> Answer | bytes | None:
        if isinstance(step, Send):
            return self._send(step.request)
        if isinstance(step, Read):
            return next(step.answer.source[1], b"")
        if isinstance(step, Close):
            step.answer.source[0].close()
        else:
            time.sleep(step.seconds)
        return None

    def _send(self, asked: Request) -> Answer:
        request = built(self._http, asked, self._key)
        response = self._http.send(request, stream=asked.is_stream)
        if not asked.is_stream or not response.is_success:
            response.read()
            return answer_of(response, response.content)
        mind_silence(request)
        return answer_of(response, source=(response, response.iter_raw()))


def checked(url: str) -> str:
    """The address of a server. Raises ``BadUrl``."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise BadUrl(f"{url!r} is not an address such as {DEFAULT_URL}")
    return url.rstrip("/")


def trusts_environment(url: str) -> bool:
    """A proxy that the environment names cannot reach this machine's own loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return not (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return True


def built(http: httpx.Client | httpx.AsyncClient, asked: Request, key: str | None) -> httpx.Request:
    """The request, with the key: also to where the server sends us, but never from TLS to plain text."""
    timeout = httpx.Timeout(min(_CONNECT_TIMEOUT_S, asked.read_timeout_s), read=asked.read_timeout_s)
    request = http.build_request(
        asked.method, asked.path, content=asked.content, headers=dict(asked.headers), timeout=timeout
    )
    if key is not None and (request.url.scheme == "https" or http.base_url.scheme == "http"):
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def mind_silence(request: httpx.Request) -> None:
    """From now on less patience: the transport looks up the time when it begins to read a body."""
    request.extensions["timeout"]["read"] = SILENCE_TIMEOUT_S


def answer_of(response: httpx.Response, body: bytes = b"", source: object = None) -> Answer:
    """What came, without HTTP."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status_code, headers=headers, body=body, source=source)


def broken(error: httpx.TransportError) -> Broken:
    """What went wrong, without HTTP."""
    is_refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return Broken(str(error) or type(error).__name__, is_refused=is_refused)
