"""The player's page and program."""

from fastapi import FastAPI
from starlette.responses import Response

from server.options import ROOT

_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self' blob:; "
    "frame-ancestors 'none'"
)


class PlayerRoutes:
    """The browser player, read once at start."""

    def __init__(self) -> None:
        folder = ROOT / "clients" / "player"
        self._page = (folder / "index.html").read_bytes()
        self._script = (folder / "player.js").read_bytes()

    async def page(self) -> Response:
        """The player."""
        return Response(self._page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def script(self) -> Response:
        """The player's program."""
        return Response(self._script, media_type="text/javascript")


def add_player(app: FastAPI, routes: PlayerRoutes) -> None:
    """Their addresses."""
    app.add_api_route("/", routes.page, methods=["GET"], include_in_schema=False)
    app.add_api_route("/player.js", routes.script, methods=["GET"], include_in_schema=False)
