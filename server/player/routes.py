"""The player's page and program."""

from starlette.responses import Response

from server.shipped import PLAYER

_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self' blob:; "
    "frame-ancestors 'none'"
)


class PlayerRoutes:
    """The browser player, read once at start."""

    def __init__(self) -> None:
        self._page = (PLAYER / "index.html").read_bytes()
        self._script = (PLAYER / "player.js").read_bytes()

    async def page(self) -> Response:
        """The player."""
        return Response(self._page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def script(self) -> Response:
        """The player's program."""
        return Response(self._script, media_type="text/javascript")
