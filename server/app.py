"""The application: which address is answered by what.

Knows no logic; the routes, the error shape and the limits live in their own files.
"""

from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from engine import Engine
from server.http.access_log import AccessLog
from server.http.answers import ErrorAnswer, answer_in_one_shape
from server.http.body import body_schema
from server.http.callers import Access, Callers
from server.http.envelope import Envelope
from server.http.hosts import Hosts, KnownHosts
from server.http.keys import KeyRing
from server.http.limits import BodyLimit
from server.http.origins import Origins
from server.http.tokens import ViewerTokens
from server.info.routes import InfoRoutes
from server.metrics.endpoint import PATH, MetricsRoute
from server.metrics.exchanges import Exchanges
from server.metrics.families import Families
from server.metrics.readings import Readings
from server.player.routes import PlayerRoutes
from server.settings import Settings
from server.videos.events import EVENTS_TYPE
from server.videos.hls import PLAYLIST_TYPE, HlsRoutes
from server.videos.idempotency import HEADER, KEY_LENGTH_MAX
from server.videos.ownership import Ownership, OwnVideosOnly
from server.videos.query import CONTENT_QUERY, LAST_EVENT_ID, LIST_QUERY, RELOAD_QUERY, STREAM_QUERY
from server.videos.routes import VideoRoutes
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate

Responses = dict[int | str, dict[str, Any]]
_A_VIDEO = "/v1/videos/{video_id}"
PROBED = ("/livez", "/readyz", PATH)
"""Asked by machines that know neither a name nor a key of the server."""
OPEN = (*PROBED, "/", "/player.js", "/openapi.json", "/v1/models", "/v1/models/{name}", "/v1/capabilities")
"""Need no key. Whatever is not here needs one."""


def _open_errors(*codes: int) -> Responses:
    return {code: {"model": ErrorAnswer} for code in codes}


def _errors(*codes: int) -> Responses:
    """Those of an address that needs a key, which may be asked too often."""
    return _open_errors(*sorted({401, 403, 421, 429, *codes}))


_VIDEO: Responses = {
    200: {
        "description": "Fragmented MP4, sent while it is generated. The status is sent with the first fragment.",
        "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Video-Id": {"description": "For `/v1/videos/{id}`.", "schema": {"type": "string"}},
            "X-Decoder": {
                "description": "What turns latents into pictures: `wan` is faithful, `tiny` is many times faster.",
                "schema": {"type": "string"},
            },
        },
    }
}


_BYTES = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: Responses = {
    200: {
        "description": "The file of an ended video; of one that is being made, fragments as they come.",
        "content": {"video/mp4": _BYTES, "image/webp": _BYTES, "image/jpeg": _BYTES},
    },
    206: {"description": "The part of the file that `Range` names.", "content": {"video/mp4": _BYTES}},
    304: {"description": "The client has it: `If-None-Match` names its `ETag`."},
}
_IDEMPOTENT = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": "The same request with the same key within 24 hours gets the same video.",
            "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX},
        }
    ]
}


def _query(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {"parameters": parameters}


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
    _add_hls_routes(app, HlsRoutes(engine, settings, families, access.tokens))
    _add_info_routes(app, InfoRoutes(engine, settings))
    _add_player(app, PlayerRoutes())
    if settings.metrics_port is None:
        app.add_api_route(PATH, metrics_route(settings, engine, families).metrics, include_in_schema=False)
    _add_guards(app, settings, access, owned)
    app.add_middleware(Exchanges, families=families, routes=app.routes)
    app.add_middleware(AccessLog, quiet=PROBED)
    app.add_middleware(Envelope)
    answer_in_one_shape(app)
    _complete_document(app)
    return app


def _add_guards(app: FastAPI, settings: Settings, access: Access, owned: Ownership) -> None:
    """What a request passes before a route sees it, the last first."""
    app.add_middleware(BodyLimit, limits=settings.transport)
    app.add_middleware(OwnVideosOnly, owned=owned, video_path=_A_VIDEO)
    app.add_middleware(Callers, access=access, open_paths=OPEN, video_path=_A_VIDEO)
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
        responses={**_VIDEO, **_errors(400, 408, 409, 410, 413, 415, 502, 503, 504)},
        openapi_extra={**body_schema(GenerateRequest), **_IDEMPOTENT},
        response_class=Response,
    )
    created: Responses = {
        200: {"headers": {"Location": {"description": "The resource.", "schema": {"type": "string"}}}}
    }
    app.add_api_route(
        "/v1/videos",
        routes.create,
        methods=["POST"],
        responses={**created, **_errors(400, 408, 409, 410, 413, 415, 503)},
        openapi_extra={**body_schema(VideoCreate), **_IDEMPOTENT},
    )
    app.add_api_route(
        f"{_A_VIDEO}/remix",
        routes.remix,
        methods=["POST"],
        responses={**created, **_errors(400, 404, 408, 413, 415, 429, 503)},
        openapi_extra=body_schema(PromptChange),
    )


def _add_resource_routes(app: FastAPI, routes: VideoRoutes) -> None:
    app.add_api_route(
        "/v1/videos", routes.list, methods=["GET"], responses=_errors(400), openapi_extra=_query(LIST_QUERY)
    )
    app.add_api_route(_A_VIDEO, routes.retrieve, methods=["GET"], responses=_errors(404))
    app.add_api_route(_A_VIDEO, routes.delete, methods=["DELETE"], responses=_errors(404))
    app.add_api_route(f"{_A_VIDEO}/cancel", routes.cancel, methods=["POST"], responses=_errors(404))
    app.add_api_route(
        f"{_A_VIDEO}/prompt",
        routes.change_prompt,
        methods=["POST"],
        responses=_errors(400, 404, 408, 413, 415, 503),
        openapi_extra=body_schema(PromptChange),
    )


def _add_reading_routes(app: FastAPI, routes: VideoRoutes) -> None:
    app.add_api_route(
        f"{_A_VIDEO}/stream",
        routes.stream,
        methods=["GET"],
        responses={**_VIDEO, **_errors(400, 404, 410, 425, 503, 504)},
        openapi_extra=_query(STREAM_QUERY),
        response_class=Response,
    )
    events = {EVENTS_TYPE: {"schema": {"type": "string"}}}
    app.add_api_route(
        f"{_A_VIDEO}/events",
        routes.events,
        methods=["GET"],
        responses={200: {"content": events}, 204: {"description": "It ended; all is told."}, **_errors(400, 404)},
        openapi_extra={"parameters": [LAST_EVENT_ID]},
        response_class=Response,
    )
    app.add_api_route(
        f"{_A_VIDEO}/content",
        routes.content,
        methods=["GET"],
        responses={**_CONTENT, **_errors(400, 404, 410, 416, 425, 429, 503, 504)},
        openapi_extra=_query(CONTENT_QUERY),
        response_class=Response,
    )


def _add_hls_routes(app: FastAPI, routes: HlsRoutes) -> None:
    text, media = {PLAYLIST_TYPE: {"schema": {"type": "string"}}}, _VIDEO[200]["content"]
    app.add_api_route(
        f"{_A_VIDEO}/index.m3u8",
        routes.playlist,
        methods=["GET"],
        responses={200: {"content": text}, **_errors(400, 404, 410, 429, 503, 504)},
        openapi_extra=_query(RELOAD_QUERY),
        response_class=Response,
    )
    app.add_api_route(
        f"{_A_VIDEO}/init.mp4",
        routes.init_segment,
        methods=["GET"],
        responses={200: {"content": media}, **_errors(404, 410, 429, 503, 504)},
        response_class=Response,
    )
    app.add_api_route(
        f"{_A_VIDEO}/blocks/{{n}}.m4s",
        routes.block,
        methods=["GET"],
        responses={200: {"content": media}, **_errors(400, 404, 410, 425, 503)},
        response_class=Response,
    )


def _add_info_routes(app: FastAPI, routes: InfoRoutes) -> None:
    app.add_api_route("/v1/models", routes.models, methods=["GET"], responses=_open_errors(403, 421))
    app.add_api_route("/v1/models/{name}", routes.model, methods=["GET"], responses=_open_errors(403, 404, 421))
    app.add_api_route("/v1/capabilities", routes.capabilities, methods=["GET"], responses=_open_errors(403, 421))
    app.add_api_route("/livez", routes.livez, methods=["GET"], responses=_open_errors(503))
    app.add_api_route("/readyz", routes.readyz, methods=["GET"], responses=_open_errors(503))


def _add_player(app: FastAPI, routes: PlayerRoutes) -> None:
    app.add_api_route("/", routes.page, methods=["GET"], include_in_schema=False)
    app.add_api_route("/player.js", routes.script, methods=["GET"], include_in_schema=False)


def _complete_document(app: FastAPI) -> None:
    """Add the bodies that we read ourselves to the OpenAPI document; drop the 422 that the framework supposes."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path not in OPEN:
            for operation in operations.values():
                operation["security"] = [{"key": []}, {}]  # a server without keys asks for none
    schemas = document["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for model in (GenerateRequest, PromptChange, VideoCreate):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
