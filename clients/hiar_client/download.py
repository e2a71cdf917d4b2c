"""Reads the content of a video as a file, over as many connections as it takes. No input or output here."""

from collections.abc import Callable

from hiar_client import requests
from hiar_client.errors import BadStream, HiarError, StreamCut
from hiar_client.exchange import Answer, Asking, Broken, Close, Read, Steps, Wait
from hiar_client.objects import Variant
from hiar_client.outage import Outage


class Download:
    """One download. A file that is whole on the server is read on where its connection broke."""

    def __init__(
        self, asking: Asking, outage: Outage, video_id: str, variant: Variant, take: Callable[[bytes], object]
    ) -> None:
        """``take`` is given the bytes in order."""
        self._asking, self._outage, self._take = asking, outage, take
        self._video_id, self._variant = video_id, variant
        self._num_bytes = 0

    def run(self) -> Steps[int]:
        """Read to the end. Returns the number of bytes. Raises ``HiarError``; ``StreamCut`` where it cannot go on."""
        answer = yield from self._asking.ask(requests.content(self._video_id, self._variant))
        etag = answer.headers.get("etag")
        while (cut := (yield from self._read(answer))) is not None:
            if etag is None:
                raise cut
            answer = yield from self._reconnect(cut, etag)
        return self._num_bytes

    def _read(self, answer: Answer) -> Steps[StreamCut | None]:
        """Read one connection to its end; returns what cut it."""
        try:
            while data := (yield Read(answer)):
                self._outage.over()
                self._take(data)
                self._num_bytes += len(data)
        except Broken as broken:
            yield Close(answer)
            return StreamCut(f"the connection broke behind {self._num_bytes} bytes: {broken}", retryable=True)
        yield Close(answer)
        return None

    def _reconnect(self, error: HiarError, etag: str) -> Steps[Answer]:
        headers = {"Range": f"bytes={self._num_bytes}-", "If-Range": etag}
        while True:
            yield Wait(self._outage.wait_s(error))
            try:
                answer = yield from self._asking.ask_once(requests.content(self._video_id, self._variant, headers))
            except HiarError as failed:
                error = failed
                continue
            if answer.status != 206:
                yield Close(answer)
                raise BadStream("the file changed while it was read")
            return answer
