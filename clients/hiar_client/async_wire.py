"""Takes the steps of ``exchange`` over HTTP while other tasks run. Knows nothing of videos."""

from typing import TypeVar, cast

import anyio
import httpx

from hiar_client.exchange import Answer, Close, Read, Request, Send, Step, Steps
from hiar_client.wire import LIMITS, answer_of, broken, built, checked, mind_silence, trusts_environment

_T = TypeVar("_T")


class AsyncWire:
    """Connections to one server."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises ``BadUrl``."""
        self._key = key
        self._http = httpx.AsyncClient(base_url=checked(url), limits=LIMITS, trust_env=trusts_environment(url))

    async def run(self, steps: Steps[_T]) -> _T:
        """Take steps to their end. Returns and raises what they do."""
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._take(step)
                except httpx.TransportError as error:
                    step = steps.throw(broken(error))
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return cast(_T, end.value)
        finally:
            steps.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _take(self, step: Step) -> Answer | bytes | None:
        if isinstance(step, Send):
            return await self._send(step.request)
        if isinstance(step, Read):
            return cast(bytes, await anext(step.answer.source[1], b""))
        if isinstance(step, Close):
            await step.answer.source[0].aclose()
        else:
            await anyio.sleep(step.seconds)
        return None

    async def _send(self, asked: Request) -> Answer:
        request = built(self._http, asked, self._key)
        response = await self._http.send(request, stream=asked.is_stream)
        if not asked.is_stream or not response.is_success:
            await response.aread()
            return answer_of(response, response.content)
        mind_silence(request)
        return answer_of(response, source=(response, response.aiter_raw()))
