"""A load balancer of a few lines: takes TCP connections in turn to servers, until one is taken off its list."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

Address = tuple[str, int]


class RoundRobin:
    """Used from several threads."""

    def __init__(self, servers: list[Address]) -> None:
        self._servers, self._turns = list(servers), itertools.count()
        self._lock = threading.Lock()

    def drop(self, server: Address) -> None:
        """Send no new connection there."""
        with self._lock:
            self._servers.remove(server)

    def _next(self) -> Address:
        with self._lock:
            return self._servers[next(self._turns) % len(self._servers)]

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Its URL."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            taking = threading.Thread(target=self._take, args=(listener,))
            taking.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                taking.join()

    def _take(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._next())
                threading.Thread(target=_join, args=(client, server), daemon=True).start()


def _join(client: socket.socket, server: socket.socket) -> None:
    with client, server:
        back = threading.Thread(target=_carry, args=(server, client), daemon=True)
        back.start()
        _carry(client, server)
        back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    """Bytes of one direction, and their end."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
