"""Counts requests and answers by route, and refusals by reason. Pure ASGI.

A path is labelled with its route's template. A path that is none of ours, or a method its route has not, is ``other``:
callers cannot make new series.
"""

import time
from collections.abc import Iterable

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BUG, ERROR_KEY, ApiError
from server.metrics.families import Families

OTHER = "other"
_OTHER_CODES = (204, 400, 401, 403, 404, 405, 408, 413, 421, 429)
_MAKES_VIDEOS = {("POST", "/v1/generate"), ("POST", "/v1/videos"), ("POST", "/v1/videos/{video_id}/remix")}
_PROBES = ("/livez", "/readyz")
"""They fail by design while the server starts."""


class Exchanges:
    """Wraps an application whose routes are all there."""

    def __init__(self, app: ASGIApp, families: Families, routes: Iterable[BaseRoute]) -> None:
        self._app, self._http = app, families.http
        self._errors, self._rejected = families.engine.errors, families.videos.rejected
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._make_children()

    def _make_children(self) -> None:
        for route in self._routes:
            self._http.in_flight.labels(route.path)
            documented = {int(code) for code in getattr(route, "responses", {})}
            codes = documented | {getattr(route, "status_code", None) or 200, 500}
            for method in (route.methods or set()) - {"HEAD"}:
                self._http.duration.labels(method, route.path)
                for code in codes:
                    self._http.requests.labels(method, route.path, str(code))
        self._http.in_flight.labels(OTHER)
        self._http.duration.labels(OTHER, OTHER)
        for code in _OTHER_CODES:
            self._http.requests.labels(OTHER, OTHER, str(code))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, route = self._labels(scope)
        began_s, has_begun = time.monotonic(), False

        def begin(code: int) -> None:
            nonlocal has_begun
            has_begun = True
            self._http.requests.labels(method, route, str(code)).inc()
            self._http.duration.labels(method, route).observe(time.monotonic() - began_s)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                begin(message["status"])
            await send(message)

        self._http.in_flight.labels(route).inc()
        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not has_begun:  # a bug: the framework outside answers for it
                begin(500)
                self._errors.labels("http", BUG.code).inc()
            raise
        finally:
            self._http.in_flight.labels(route).dec()
            self._count_error(method, route, scope.get(ERROR_KEY))

    def _labels(self, scope: Scope) -> tuple[str, str]:
        for route in self._routes:
            if scope["method"] in (route.methods or ()) and route.path_regex.match(scope["path"]):
                return scope["method"], route.path
        return OTHER, OTHER

    def _count_error(self, method: str, route: str, error: ApiError | None) -> None:
        if error is None or route in _PROBES:
            return
        self._errors.labels("http", error.row.code).inc()
        if (method, route) in _MAKES_VIDEOS and error.row.rejected is not None:
            self._rejected.labels(error.row.rejected).inc()
