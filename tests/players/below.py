"""A reverse proxy that shows a server below a path, as one in front of several services does."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

PATH = "/video"
CHUNK_BYTES = 65_536
OF_ONE_HOP = {"connection", "transfer-encoding", "keep-alive", "server", "date"}


class _Passing(BaseHTTPRequestHandler):
    """Takes one request, asks the server without the path, and sends what comes as it comes."""

    upstream: str

    def do_GET(self) -> None:
        if not self.path.startswith(f"{PATH}/"):
            self.send_error(404)
            return
        parts = urlsplit(self.upstream)
        server = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.request(self.command, self.path.removeprefix(PATH), body or None, dict(self.headers))
        try:
            self._pass(server.getresponse())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser has left
        finally:
            server.close()

    do_POST = do_DELETE = do_HEAD = do_GET

    def _pass(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in OF_ONE_HOP:
                self.send_header(name, value)
        self.end_headers()
        while data := answer.read1(CHUNK_BYTES):
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def shown_below(url: str) -> Iterator[str]:
    """The address of the page behind the proxy."""
    passing = type("Passing", (_Passing,), {"upstream": url})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), passing)
    proxy.daemon_threads = True
    proxy.block_on_close = False
    thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}{PATH}/"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
