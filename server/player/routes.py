"""The player's page, programs and styles."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from server.player.files import NAMES, PAGE, PlayerFile, read_file

_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_ALL = {"Cache-Control": "no-cache"}
_PAGE = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
"""The page's address may hold a viewer token, which no other server may see."""


class PlayerRoutes:
    """The browser player, read once at start."""

    def __init__(self) -> None:
        self._page = read_file(PAGE)
        self.files = {name: _answering(read_file(name)) for name in NAMES}
        """What answers each file's address."""

    async def page(self, request: Request) -> Response:
        """The player."""
        return _answer(request, self._page, _PAGE)


def _answering(file: PlayerFile) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return _answer(request, file, {})

    return answer


def _answer(request: Request, file: PlayerFile, headers: dict[str, str]) -> Response:
    headers = {"ETag": file.etag, **_ALL, **headers}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)
