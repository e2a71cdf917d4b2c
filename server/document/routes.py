"""The document of the API: for programs, and as a page."""

import json

from starlette.responses import Response

from server.document.operation import Json
from server.document.page import POLICY, page


class DocumentRoutes:
    """The document of the API, made once at start."""

    def __init__(self, document: Json) -> None:
        self._json = json.dumps(document).encode("ascii")
        self._page = page(document).encode("utf-8")

    async def json(self) -> Response:
        """For programs."""
        return Response(self._json, media_type="application/json")

    async def page(self) -> Response:
        """For people."""
        return Response(self._page, media_type="text/html", headers={"Content-Security-Policy": POLICY})
