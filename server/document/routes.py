"""The document of the API: for programs, and as a page."""

import json
from html import escape

from starlette.requests import Request
from starlette.responses import Response

from server.document.operation import Json
from server.document.page import BASE, POLICY, page


class DocumentRoutes:
    """The document of the API, made once at start."""

    def __init__(self, document: Json) -> None:
        self._json = json.dumps(document).encode("ascii")
        self._page = page(document)

    async def json(self) -> Response:
        """For programs."""
        return Response(self._json, media_type="application/json")

    async def page(self, request: Request) -> Response:
        """For people, with commands that ask the server as they did."""
        text = self._page.replace(BASE, escape(str(request.base_url).removesuffix("/")))
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return Response(text, media_type="text/html", headers=headers)
