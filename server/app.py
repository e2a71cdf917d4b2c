"""The application: which address is answered by what.

Knows no logic; the routes, the error shape and the limits live in their own files.
"""

from fastapi import FastAPI
from starlette.responses import Response

from engine import Engine
from server.document import (
    A_VIDEO,
    CONTENT,
    IDEMPOTENT,
    VIDEO,
    Responses,
    complete_document,
    errors,
    form_schema,
    query,
)
from server.http.access_log import AccessLog
from server.http.answers import answer_in_one_shape
from server.http.body import body_schema
from server.http.callers import Access, Callers
from server.http.envelope import Envelope
from server.http.hosts import Hosts, KnownHosts
from server.http.keys import KeyRing
from server.http.limits import BodyLimit, Uploads
from server.http.origins import Origins
from server.http.tokens import ViewerTokens
from server.info.routes import InfoRoutes, add_info_routes
from server.metrics.endpoint import PATH, MetricsRoute
from server.metrics.exchanges import Exchanges
from server.metrics.families import Families
from server.metrics.readings import Readings
from server.player.routes import PlayerRoutes, add_player
from server.settings import Settings
from server.videos.events import EVENTS_TYPE
from server.videos.hls import HlsRoutes, add_hls_routes
from server.videos.ownership import Ownership, OwnVideosOnly
from server.videos.query import CONTENT_QUERY, LAST_EVENT_ID, LIST_QUERY, STREAM_QUERY
from server.videos.routes import VideoRoutes
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate

PROBED = ("/livez", "/readyz", PATH)
"""Asked by machines that know neither a name nor a key of the server."""
OPEN = (*PROBED, "/", "/player.js", "/openapi.json", "/v1/models", "/v1/models/{name}", "/v1/capabilities")
"""Need no key. Whatever is not here needs one."""

MAKING = ("/v1/generate", "/v1/videos")
"""Take pictures and clips."""


def create_app(settings: Settings, engine: Engine, families: Families) -> FastAPI:
    """Build the application on an engine that the caller starts and stops. It has `/metrics` unless that has a port.

    Raises ``SettingError`` where the file of keys cannot be read.
    """
    app = FastAPI(title="HiAR Server", version="0.1.0", docs_url=None, redoc_url=None, redirect_slashes=False)
    access = Access(keys=None if settings.keys is None else KeyRing(settings.keys), tokens=ViewerTokens())
    owned = Ownership(engine, access.keys, settings.max_per_client)
    videos = VideoRoutes(engine, settings, families, owned, access.tokens)
    _add_making_routes(app, videos)
    _add_resource_routes(app, videos)
    _add_reading_routes(app, videos)
    add_hls_routes(app, HlsRoutes(engine, settings, families, access.tokens))
    add_info_routes(app, InfoRoutes(engine, settings))
    add_player(app, PlayerRoutes())
    if settings.metrics_port is None:
        app.add_api_route(PATH, metrics_route(settings, engine, families).metrics, include_in_schema=False)
    _add_guards(app, settings, access, owned)
    app.add_middleware(Exchanges, families=families, routes=app.routes)
    app.add_middleware(AccessLog, quiet=PROBED)
    app.add_middleware(Envelope)
    answer_in_one_shape(app)
    complete_document(app, OPEN)
    return app


def _add_guards(app: FastAPI, settings: Settings, access: Access, owned: Ownership) -> None:
    """What a request passes before a route sees it, the last first."""
    app.add_middleware(BodyLimit, limits=settings.transport, uploads=Uploads(MAKING, settings.max_upload))
    app.add_middleware(OwnVideosOnly, owned=owned, video_path=A_VIDEO)
    app.add_middleware(Callers, access=access, open_paths=OPEN, video_path=A_VIDEO)
    app.add_middleware(Origins, allowed=settings.cors_origins, exempt=PROBED)
    app.add_middleware(Hosts, known=KnownHosts(settings.host, settings.allowed_hosts), exempt=PROBED)


def metrics_route(settings: Settings, engine: Engine, families: Families) -> MetricsRoute:
    """What answers a scrape, wherever it is served."""
    return MetricsRoute(families, Readings(families, engine, settings.engine.max_queue))


def _add_making_routes(app: FastAPI, routes: VideoRoutes) -> None:
    app.add_api_route(
        "/v1/generate",
        routes.generate,
        methods=["POST"],
        responses={**VIDEO, **errors(400, 408, 409, 410, 413, 415, 502, 503, 504)},
        openapi_extra={**body_schema(GenerateRequest, form_schema(GenerateRequest)), **IDEMPOTENT},
        response_class=Response,
    )
    created: Responses = {
        200: {"headers": {"Location": {"description": "The resource.", "schema": {"type": "string"}}}}
    }
    app.add_api_route(
        "/v1/videos",
        routes.create,
        methods=["POST"],
        responses={**created, **errors(400, 408, 409, 410, 413, 415, 503)},
        openapi_extra={**body_schema(VideoCreate, form_schema(VideoCreate)), **IDEMPOTENT},
    )
    app.add_api_route(
        f"{A_VIDEO}/remix",
        routes.remix,
        methods=["POST"],
        responses={**created, **errors(400, 404, 408, 413, 415, 429, 503)},
        openapi_extra=body_schema(PromptChange),
    )


def _add_resource_routes(app: FastAPI, routes: VideoRoutes) -> None:
    app.add_api_route(
        "/v1/videos", routes.list, methods=["GET"], responses=errors(400), openapi_extra=query(LIST_QUERY)
    )
    app.add_api_route(A_VIDEO, routes.retrieve, methods=["GET"], responses=errors(404))
    app.add_api_route(A_VIDEO, routes.delete, methods=["DELETE"], responses=errors(404))
    app.add_api_route(f"{A_VIDEO}/cancel", routes.cancel, methods=["POST"], responses=errors(404))
    app.add_api_route(
        f"{A_VIDEO}/prompt",
        routes.change_prompt,
        methods=["POST"],
        responses=errors(400, 404, 408, 413, 415, 503),
        openapi_extra=body_schema(PromptChange),
    )


def _add_reading_routes(app: FastAPI, routes: VideoRoutes) -> None:
    app.add_api_route(
        f"{A_VIDEO}/stream",
        routes.stream,
        methods=["GET"],
        responses={**VIDEO, **errors(400, 404, 410, 425, 503, 504)},
        openapi_extra=query(STREAM_QUERY),
        response_class=Response,
    )
    events = {EVENTS_TYPE: {"schema": {"type": "string"}}}
    app.add_api_route(
        f"{A_VIDEO}/events",
        routes.events,
        methods=["GET"],
        responses={200: {"content": events}, 204: {"description": "It ended; all is told."}, **errors(400, 404)},
        openapi_extra={"parameters": [LAST_EVENT_ID]},
        response_class=Response,
    )
    app.add_api_route(
        f"{A_VIDEO}/content",
        routes.content,
        methods=["GET"],
        responses={**CONTENT, **errors(400, 404, 410, 416, 425, 429, 503, 504)},
        openapi_extra=query(CONTENT_QUERY),
        response_class=Response,
    )
