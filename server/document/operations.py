"""The table of operations: every address of the API with its method, name, parameters, and answers.

The application serves exactly these, and the document tells all of them but pages.
"""

from server.document.answers import CONTENT, CREATED, MAKING, STREAM, events, json, playlist, segment
from server.document.operation import A_VIDEO, Guard, Operation, Success, Tag
from server.info.schemas import CapabilitiesAnswer, HealthAnswer, ModelAnswer, ModelsAnswer
from server.player.files import NAMES
from server.videos.event_schemas import EventAnswer
from server.videos.query import (
    CONTENT_HEADERS,
    CONTENT_QUERY,
    IDEMPOTENCY,
    LAST_EVENT_ID,
    LIST_QUERY,
    RELOAD_QUERY,
    STREAM_QUERY,
)
from server.videos.resource import PromptChanged, VideoAnswer, VideoDeleted, VideosAnswer
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate, VideoExtend

_MAKING = (
    Operation(
        id="generate_video",
        method="POST",
        path="/v1/generate",
        tag=Tag.MAKING,
        summary="Make a video and stream it in the answer",
        description="The answer is fragmented MP4, sent while it is made: an init segment, then one fragment a block. "
        "Its status is sent with the first fragment. The video ends when its last reader leaves, or `linger_seconds` "
        "later.",
        body=GenerateRequest,
        takes_form=True,
        parameters=(IDEMPOTENCY,),
        answers=(STREAM,),
        errors=(*MAKING, 409, 410, 502, 504),
    ),
    Operation(
        id="create_video",
        method="POST",
        path="/v1/videos",
        tag=Tag.MAKING,
        summary="Make a video that is read later",
        description="Answers when it is stored, before anything is made: it outlives the server. It needs no reader: "
        "ask `get_video` how it is, follow `watch_events`, or read it while it is made.",
        body=VideoCreate,
        takes_form=True,
        parameters=(IDEMPOTENCY,),
        answers=(CREATED,),
        errors=(*MAKING, 409, 410, 507),
    ),
    Operation(
        id="remix_video",
        method="POST",
        path=f"{A_VIDEO}/remix",
        tag=Tag.MAKING,
        summary="Make a video again with another prompt",
        description="A new video with the seed and all other fields of this one.",
        body=PromptChange,
        answers=(CREATED,),
        errors=(*MAKING, 404, 507),
    ),
    Operation(
        id="extend_video",
        method="POST",
        path=f"{A_VIDEO}/extend",
        tag=Tag.MAKING,
        summary="Go on where an ended video stopped",
        description="A new video, with blocks and time from 0, that begins at the frame behind the last one of this "
        "one: shown one after the other they are what a longer video would have been. Another `prompt` holds from its "
        "first whole block on. One that has not ended, or has no block, is 409.",
        body=VideoExtend,
        answers=(CREATED,),
        errors=(*MAKING, 404, 409, 410),
    ),
)
_VIDEOS = (
    Operation(
        id="list_videos",
        method="GET",
        path="/v1/videos",
        tag=Tag.VIDEOS,
        summary="List videos",
        description="Those that wait, run, or are kept, newest first; with keys, the caller's own. `has_more` says "
        "whether there is another page behind `last_id`.",
        parameters=LIST_QUERY,
        answers=(json(VideosAnswer, "A page of the list."),),
    ),
    Operation(
        id="get_video",
        method="GET",
        path=A_VIDEO,
        tag=Tag.VIDEOS,
        summary="Tell how a video is",
        description="While it waits, while it runs, and after its end until `expires_at`.",
        guard=Guard.VIEWER,
        answers=(json(VideoAnswer, "The video."),),
        errors=(404,),
    ),
    Operation(
        id="delete_video",
        method="DELETE",
        path=A_VIDEO,
        tag=Tag.VIDEOS,
        summary="Forget a video",
        description="Ends it at once, if it runs.",
        answers=(json(VideoDeleted, "It is no more."),),
        errors=(404,),
    ),
)
_STEERING = (
    Operation(
        id="change_prompt",
        method="POST",
        path=f"{A_VIDEO}/prompt",
        tag=Tag.STEERING,
        summary="Follow another prompt",
        description="Says from which block on. At most two a second; a newer one replaces one that still waits. A "
        "video that has ended, or has no more blocks, is 409.",
        body=PromptChange,
        answers=(json(PromptChanged, "Where it takes effect."),),
        errors=(404, 409, 415, 503),
    ),
    Operation(
        id="pause_video",
        method="POST",
        path=f"{A_VIDEO}/pause",
        tag=Tag.STEERING,
        summary="Begin no more blocks of a video",
        description="Those under way are made, and who reads it waits. It keeps its place for a while, then its log. A "
        "paused one stays as it is; one that has ended, or has no more blocks, is 409.",
        answers=(json(VideoAnswer, "The video."),),
        errors=(404, 409),
    ),
    Operation(
        id="resume_video",
        method="POST",
        path=f"{A_VIDEO}/resume",
        tag=Tag.STEERING,
        summary="Go on with a paused video",
        description="At once, or when it has a place again if it was paused for long. One that is not paused stays as "
        "it is; one that has ended, or has no more blocks, is 409.",
        answers=(json(VideoAnswer, "The video."),),
        errors=(404, 409),
    ),
    Operation(
        id="cancel_video",
        method="POST",
        path=f"{A_VIDEO}/cancel",
        tag=Tag.STEERING,
        summary="End a video at its next block",
        description="What was made is kept. One that has ended stays as it is.",
        answers=(json(VideoAnswer, "The video."),),
        errors=(404,),
    ),
)
_READING = (
    Operation(
        id="download_content",
        method="GET",
        path=f"{A_VIDEO}/content",
        tag=Tag.READING,
        summary="Read a whole video, or a picture of it",
        description="Of an ended video a plain MP4 file, also in parts (`Range`); of one that is being made the stream "
        "from block 0.",
        guard=Guard.VIEWER,
        parameters=(*CONTENT_QUERY, *CONTENT_HEADERS),
        answers=CONTENT,
        errors=(404, 410, 416, 425, 429, 503, 504),
    ),
    Operation(
        id="stream_video",
        method="GET",
        path=f"{A_VIDEO}/stream",
        tag=Tag.READING,
        summary="Read a video from a block on",
        description="An init segment, then fragments while they are made. A reader that was cut goes on at the number "
        "of fragments that it has.",
        guard=Guard.VIEWER,
        parameters=STREAM_QUERY,
        answers=(STREAM,),
        errors=(404, 410, 425, 429, 503, 504),
    ),
    Operation(
        id="watch_events",
        method="GET",
        path=f"{A_VIDEO}/events",
        tag=Tag.READING,
        summary="Follow what happens to a video",
        description="Server-sent events until it has ended: `queued`, `started`, `prompt`, `block`, `paused`, "
        "`resumed`, `recovering`, `recovered`, `ended`, `failed`. Each one's `data` is a JSON object. That of a "
        "`block` has in `steps` when its denoising steps ran, which shows the pipeline at work.",
        guard=Guard.VIEWER,
        parameters=(LAST_EVENT_ID,),
        answers=(
            events(EventAnswer, "Events; the `data` of each is an `EventAnswer`."),
            Success(status=204, description="It ended; all is told."),
        ),
        errors=(404,),
    ),
    Operation(
        id="get_playlist",
        method="GET",
        path=f"{A_VIDEO}/index.m3u8",
        tag=Tag.READING,
        summary="The HLS playlist of a video",
        description="One segment a block. Waits for the first block, and for the one that `_HLS_msn` names.",
        guard=Guard.VIEWER,
        parameters=RELOAD_QUERY,
        answers=(playlist(),),
        errors=(404, 410, 429, 503, 504),
    ),
    Operation(
        id="get_init_segment",
        method="GET",
        path=f"{A_VIDEO}/init.mp4",
        tag=Tag.READING,
        summary="What stands before the first HLS segment",
        guard=Guard.VIEWER,
        answers=(segment("The init segment."),),
        errors=(404, 410, 429, 503, 504),
    ),
    Operation(
        id="get_block",
        method="GET",
        path=f"{A_VIDEO}/blocks/{{n}}.m4s",
        tag=Tag.READING,
        summary="One block of a video, as an HLS segment",
        description="Waits for a block that comes next.",
        guard=Guard.VIEWER,
        answers=(segment("The fragment."),),
        errors=(404, 410, 425, 503),
    ),
)
_SERVER = (
    Operation(
        id="list_models",
        method="GET",
        path="/v1/models",
        tag=Tag.SERVER,
        summary="List the models that can be asked for",
        guard=Guard.OPEN,
        answers=(json(ModelsAnswer, "All models."),),
    ),
    Operation(
        id="get_model",
        method="GET",
        path="/v1/models/{name}",
        tag=Tag.SERVER,
        summary="Tell of one model",
        guard=Guard.OPEN,
        answers=(json(ModelAnswer, "The model."),),
        errors=(404,),
    ),
    Operation(
        id="get_capabilities",
        method="GET",
        path="/v1/capabilities",
        tag=Tag.SERVER,
        summary="Tell what can be asked for, limits, plan and load",
        guard=Guard.OPEN,
        answers=(json(CapabilitiesAnswer, "What a player needs."),),
    ),
    Operation(
        id="get_liveness",
        method="GET",
        path="/livez",
        tag=Tag.HEALTH,
        summary="Tell whether the process should go on living",
        guard=Guard.PROBE,
        answers=(json(HealthAnswer, "It lives."),),
        errors=(503,),
    ),
    Operation(
        id="get_readiness",
        method="GET",
        path="/readyz",
        tag=Tag.HEALTH,
        summary="Tell whether new videos would be taken now",
        guard=Guard.PROBE,
        answers=(json(HealthAnswer, "It is ready."),),
        errors=(503,),
    ),
)
_PAGES = tuple(
    Operation(id=name, method="GET", path=path, tag=Tag.PAGES, summary=summary, guard=guard)
    for name, path, summary, guard in (
        ("player_page", "/", "The player", Guard.OPEN),
        *((f"player_file_{name}", f"/{name}", "A file of it", Guard.OPEN) for name in NAMES),
        ("document", "/openapi.json", "The API as an OpenAPI document", Guard.OPEN),
        ("document_page", "/docs", "The same, to read", Guard.OPEN),
        ("metrics", "/metrics", "Metrics for Prometheus", Guard.PROBE),
    )
)
OPERATIONS = (*_MAKING, *_VIDEOS, *_STEERING, *_READING, *_SERVER, *_PAGES)

PROBED = tuple(row.path for row in OPERATIONS if row.guard is Guard.PROBE)
"""Asked by machines that know neither a name nor a key of the server."""
OPEN = tuple(row.path for row in OPERATIONS if row.guard in {Guard.PROBE, Guard.OPEN})
"""Need no key. Whatever is not here needs one."""
