"""Where several servers share a database: sends whoever asks for another one's running video there. Pure ASGI."""

from urllib.parse import quote

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engine import StorageFailed, UnknownVideo
from server.errors import from_engine
from server.http.callers import below, caller_of
from server.http.refusing import refuse
from server.http.tokens import with_token
from server.videos.library import Library


class MakersElsewhere:
    """Answers 307 for running videos of other servers, but where the store is enough to tell of them."""

    def __init__(self, app: ASGIApp, library: Library, video_path: str) -> None:
        """``video_path``: the address of a video; what is below it is its too."""
        self._app, self._library, self._video = app, library, below(video_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = self._video.match(scope["path"]) if scope["type"] == "http" else None
        if found is None or (scope["method"] in {"GET", "HEAD"} and found.end() == len(scope["path"])):
            await self._app(scope, receive, send)
            return
        try:
            address = await self._library.address_elsewhere(found["video_id"])
        except (UnknownVideo, StorageFailed) as error:
            await refuse(from_engine(error), scope, receive, send)
            return
        if address is None:
            await self._app(scope, receive, send)
        else:
            await Response(status_code=307, headers={"Location": _there(scope, address)})(scope, receive, send)


def _there(scope: Scope, address: str) -> str:
    query = scope["query_string"].decode("latin-1")
    path = quote(scope["path"], safe="/~:@!$&'()*+,;=")
    return with_token(f"{address}{path}{'?' if query else ''}{query}", caller_of(scope).token)
