"""Prompt embeddings for the front: asked of a worker, remembered by text.

Requests outlive a worker: what was not answered is asked again of the next one. Knows no session.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from engine.errors import HiarError
from engine.messages import EncodePrompt, PromptEncoded, TensorBytes
from engine.observe import Observer

REMEMBERED_PROMPTS = 64


class PromptEncoder:
    """Embeddings by prompt text."""

    def __init__(self, send: Callable[[EncodePrompt], None], observer: Observer) -> None:
        self._send, self._observer = send, observer
        self._remembered: OrderedDict[str, TensorBytes] = OrderedDict()
        self._asked: dict[int, tuple[str, asyncio.Future[TensorBytes]]] = {}
        self._next_request = 0

    async def embed(self, text: str) -> TensorBytes:
        """The embedding of a prompt: its valid rows [num_tokens, text_dim]. Raises what ``fail`` was given."""
        self._observer.prompt_asked(remembered=text in self._remembered)
        if text in self._remembered:
            self._remembered.move_to_end(text)
            return self._remembered[text]
        request, self._next_request = self._next_request, self._next_request + 1
        future: asyncio.Future[TensorBytes] = asyncio.get_running_loop().create_future()
        self._asked[request] = (text, future)
        self._send(EncodePrompt(request=request, text=text))
        try:
            return await future
        finally:
            self._asked.pop(request, None)

    def answer(self, message: PromptEncoded) -> None:
        """A worker's answer; one that nobody waits for any more is dropped."""
        text, future = self._asked.pop(message.request, (None, None))
        if text is None or future is None or future.done():
            return
        self._remembered[text] = message.embedding
        if len(self._remembered) > REMEMBERED_PROMPTS:
            self._remembered.popitem(last=False)
        future.set_result(message.embedding)

    def ask_again(self) -> None:
        """Put all open questions to a new worker."""
        for request, (text, _) in self._asked.items():
            self._send(EncodePrompt(request=request, text=text))

    def fail(self, error: HiarError) -> None:
        """No worker will answer any more."""
        for _, future in self._asked.values():
            if not future.done():
                future.set_exception(error)
