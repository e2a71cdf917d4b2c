"""A wire between a client and a server that breaks where a test says, and then again."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress


class CuttingRelay:
    """Passes bytes on. What comes from the server is cut behind as many bytes as the next of ``cuts`` says.

    One connection at a time; when the cuts are used up nothing is cut any more.
    """

    def __init__(self, port: int, cuts: Iterable[int]) -> None:
        self.port = port
        """Where the server is; a test may change it."""
        self._cuts = iter(cuts)
        self.num_cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._carry, args=(near, next(self._cuts, None))))
                self._threads[-1].start()

    def _carry(self, near: socket.socket, left: int | None) -> None:
        with suppress(OSError), near, socket.create_connection(("127.0.0.1", self.port)) as far:
            back = threading.Thread(target=self._pass, args=(near, far))
            back.start()
            try:
                self._forward(far, near, left)
            finally:
                for end in (near, far):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

    def _forward(self, far: socket.socket, near: socket.socket, left: int | None) -> None:
        while data := far.recv(65536):
            near.sendall(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                self.num_cut += 1
                return

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting(port: int, cuts: Iterable[int] = ()) -> Iterator[CuttingRelay]:
    relay = CuttingRelay(port, cuts)
    try:
        yield relay
    finally:
        relay.stop()
