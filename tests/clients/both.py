"""One test for both clients: the asynchronous one behind the methods of the other, on an event loop of its own."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from hiar_client import AsyncClient, Client

_WRAPPED = "hiar_client.async_"


class Blocking:
    """An object of the asynchronous client whose coroutines are waited for and whose iterators are plain ones."""

    def __init__(self, portal: BlockingPortal, inner: Any) -> None:
        self._portal, self._inner = portal, inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if callable(value):
            return lambda *values, **named: self._plain(value(*values, **named))
        return self._plain(value)

    def __enter__(self) -> Any:
        return self._plain(self._portal.call(self._inner.__aenter__))

    def __exit__(self, *error: Any) -> None:
        self._portal.call(self._inner.__aexit__, *error)

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(aiter(self._inner))

    def _plain(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self._portal.call(_result, value)
        if isinstance(value, AsyncIterator):
            return self._iterate(value)
        return Blocking(self._portal, value) if type(value).__module__.startswith(_WRAPPED) else value

    def _iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while (item := self._portal.call(_next, items)) is not _END:
                yield item
        finally:
            self._portal.call(cast(Any, items).aclose)


_END = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _END)


async def _result(value: Awaitable[Any]) -> Any:
    return await value


MakeClient = Callable[..., Client]
"""Makes a client of the kind that is under test."""


@contextmanager
def making(kind: str) -> Iterator[MakeClient]:
    if kind == "sync":
        yield Client
        return
    with start_blocking_portal() as portal:
        yield lambda *values, **named: cast(Client, Blocking(portal, AsyncClient(*values, **named)))
