"""The application: which address is answered by what.

Knows no logic; the routes, the error shape and the limits live in their own files.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from engine import Engine
from server.document.answers import errors_of
from server.document.openapi import openapi_document
from server.document.operation import A_VIDEO
from server.document.operations import OPEN, OPERATIONS, PROBED
from server.document.routes import DocumentRoutes
from server.document.served import Served
from server.http.access_log import AccessLog
from server.http.answers import answer_in_one_shape
from server.http.callers import Access, Callers
from server.http.envelope import Envelope
from server.http.hosts import Hosts, KnownHosts
from server.http.keys import KeyRing
from server.http.limits import BodyLimit, Uploads
from server.http.origins import Origins
from server.http.tokens import ViewerTokens
from server.info.routes import InfoRoutes
from server.metrics.endpoint import MetricsRoute
from server.metrics.exchanges import Exchanges
from server.metrics.families import Families
from server.metrics.readings import Readings
from server.player.routes import PlayerRoutes
from server.settings import Settings
from server.videos.hls import HlsRoutes
from server.videos.idempotency import MemoryReceipts
from server.videos.library import Library
from server.videos.makers import MakersElsewhere
from server.videos.ownership import Ownership, OwnVideosOnly
from server.videos.routes import VideoRoutes
from server.videos.store.opening import OpenStore

if TYPE_CHECKING:
    from server.traces.traces import Traces

Answers = dict[str, Callable[..., Any]]
"""What answers an operation, by its id."""

MAKING = ("/v1/generate", "/v1/videos")
"""Take pictures and clips."""


def create_app(
    settings: Settings,
    engine: Engine,
    families: Families,
    traces: "Traces | None" = None,
    kept: OpenStore | None = None,
) -> FastAPI:
    """Build the application on an engine that the caller starts and stops. It has `/metrics` unless that has a port.

    ``traces``: where requests and videos are traced.
    ``kept``: where durable videos are kept; without it nothing outlives the process.
    Raises ``SettingError`` where the file of keys cannot be read.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    tokens = ViewerTokens(None if kept is None else kept.viewer_secret)
    access = Access(keys=None if settings.keys is None else KeyRing(settings.keys), tokens=tokens)
    store, receipts = (None, MemoryReceipts()) if kept is None else (kept.store, kept.receipts)
    library = Library(engine, store)
    owned = Ownership(engine, library, access.keys, settings.max_per_client)
    on_made = traces.follow if traces else None
    videos = VideoRoutes(engine, library, settings, families, owned, tokens, receipts, on_made)
    answers = _of_videos(videos) | _of_hls(HlsRoutes(library, settings, families, tokens))
    answers |= _of_server(InfoRoutes(engine, settings), PlayerRoutes())
    document = DocumentRoutes(openapi_document(Served.of(engine.manifest, settings)))
    answers |= {"document": document.json, "document_page": document.page}
    if settings.metrics_port is None:
        answers["metrics"] = metrics_route(settings, engine, families).metrics
    _add_operations(app, answers)
    if kept is not None and kept.is_shared:
        app.add_middleware(MakersElsewhere, library=library, video_path=A_VIDEO)
    _add_guards(app, settings, access, owned)
    app.add_middleware(Exchanges, families=families, routes=app.routes)
    app.add_middleware(AccessLog, quiet=PROBED)
    if traces is not None:
        app.add_middleware(traces.requests)
    app.add_middleware(Envelope)
    answer_in_one_shape(app)
    return app


def _add_operations(app: FastAPI, answers: Answers) -> None:
    """Serve each row of the table that has an answer here; only metrics may be served elsewhere."""
    missing = {row.id for row in OPERATIONS} ^ set(answers)
    assert missing <= {"metrics"}, f"operations without an answer, or answers without an operation: {missing}"
    for row in OPERATIONS:
        if row.id in answers:
            responses: dict[int | str, dict[str, Any]] = {
                status: {} for status in errors_of(row, from_application=True)
            }
            responses |= {answer.status: {} for answer in row.answers}
            app.add_api_route(row.path, answers[row.id], methods=[row.method], responses=responses)


def _of_videos(routes: VideoRoutes) -> Answers:
    return {
        "generate_video": routes.generate,
        "create_video": routes.create,
        "remix_video": routes.remix,
        "extend_video": routes.extend,
        "list_videos": routes.list,
        "get_video": routes.retrieve,
        "delete_video": routes.delete,
        "change_prompt": routes.change_prompt,
        "pause_video": routes.pause,
        "resume_video": routes.resume,
        "cancel_video": routes.cancel,
        "download_content": routes.content,
        "stream_video": routes.stream,
        "watch_events": routes.events,
    }


def _of_hls(routes: HlsRoutes) -> Answers:
    return {"get_playlist": routes.playlist, "get_init_segment": routes.init_segment, "get_block": routes.block}


def _of_server(info: InfoRoutes, player: PlayerRoutes) -> Answers:
    return {
        "list_models": info.models,
        "get_model": info.model,
        "get_capabilities": info.capabilities,
        "get_liveness": info.livez,
        "get_readiness": info.readyz,
        "player_page": player.page,
        **{f"player_file_{name}": answer for name, answer in player.files.items()},
    }


def _add_guards(app: FastAPI, settings: Settings, access: Access, owned: Ownership) -> None:
    """What a request passes before a route sees it, the last first."""
    app.add_middleware(BodyLimit, limits=settings.transport, uploads=Uploads(MAKING, settings.max_upload))
    app.add_middleware(OwnVideosOnly, owned=owned, video_path=A_VIDEO)
    app.add_middleware(Callers, access=access, open_paths=OPEN, video_path=A_VIDEO)
    app.add_middleware(Origins, allowed=settings.cors_origins, exempt=PROBED)
    app.add_middleware(Hosts, known=KnownHosts(settings.host, settings.allowed_hosts), exempt=PROBED)


def metrics_route(settings: Settings, engine: Engine, families: Families) -> MetricsRoute:
    """What answers a scrape, wherever it is served."""
    return MetricsRoute(families, Readings(families, engine, settings.engine.max_queue), settings.metrics_keep_s)
