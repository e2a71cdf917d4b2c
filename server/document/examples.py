"""Examples of requests and answers that are true of the model that is served."""

from typing import Any

from pydantic import BaseModel

from server.document.served import Served
from server.errors import ERRORS
from server.videos.resource import PromptChanged, VideoAnswer, VideoDeleted, VideosAnswer
from server.videos.schemas import GenerateRequest, PromptChange, VideoCreate, VideoExtend

_ID = "video_4jJ0aVZpW8sQmT2cXk1LrN6d"
_PROMPT = "a large red circle drifts to the right over a night sky"
_NEXT = "the circle turns into a blue square"


class Examples:
    """What can be asked of this server, and what it answers."""

    def __init__(self, served: Served) -> None:
        self._served = served
        longest = served.max_seconds
        self._seconds = 4 if longest is None else min(4, longest)

    def of_body(self, model: type[BaseModel]) -> dict[str, Any]:
        """By name, each with a summary."""
        plain = {"prompt": _PROMPT, "seconds": self._seconds}
        if model is PromptChange:
            return {"change": {"summary": "Another prompt", "value": {"prompt": _NEXT}}}
        if model is VideoExtend:
            return {
                "on": {"summary": "With its last prompt", "value": {"seconds": self._seconds}},
                "change": {"summary": "With another", "value": {"seconds": self._seconds, "prompt": _NEXT}},
            }
        assert model in {GenerateRequest, VideoCreate}, model
        all_fields = {**plain, "seed": 7, "size": self._served.sizes[0], "fps": self._served.fps, "pace": "fast"}
        schedule = [{"at_seconds": 0, "prompt": _PROMPT}, {"at_seconds": self._seconds / 2, "prompt": _NEXT}]
        return {
            "text": {"summary": "A prompt", "value": plain},
            "all": {"summary": "With size, rate, seed and pace", "value": all_fields},
            "schedule": {"summary": "Prompts that change", "value": {**plain, "prompt": schedule}},
        }

    def of_answer(self, model: type[BaseModel]) -> Any:
        """One; None where the schema says enough."""
        made: dict[type[BaseModel], Any] = {
            VideoAnswer: self._video(),
            VideosAnswer: {
                "object": "list",
                "data": [self._video()],
                "first_id": _ID,
                "last_id": _ID,
                "has_more": False,
            },
            VideoDeleted: {"id": _ID, "object": "video.deleted", "deleted": True},
            PromptChanged: {"id": _ID, "block": 3, "at_seconds": 2.0625},
        }
        return made.get(model)

    def of_error(self, status: int) -> dict[str, Any]:
        """One for each code."""
        rows = {row.code: row for row in ERRORS if row.status == status}
        return {
            row.code: {
                "summary": row.about,
                "value": {"error": {"code": row.code, "message": row.about, "param": None, "type": row.type}},
            }
            for row in rows.values()
        }

    def _video(self) -> dict[str, Any]:
        address = f"/v1/videos/{_ID}"
        addresses = {"content": "content", "stream": "stream", "hls": "index.m3u8", "events": "events"}
        return {
            "id": _ID,
            "object": "video",
            "created_at": 1767225600,
            "completed_at": None,
            "expires_at": None,
            "status": "queued",
            "progress": 0,
            "model": self._served.model,
            "prompt": _PROMPT,
            "seconds": f"{self._seconds:g}",
            "size": self._served.sizes[0],
            "error": None,
            "seed": 7,
            "fps": self._served.fps,
            "queue_position": 1,
            "paused": False,
            "blocks_done": 0,
            "first_block": 0,
            "seconds_done": 0.0,
            "lead_seconds": None,
            "realtime_factor": None,
            "stalls": 0,
            "stalled_seconds": 0.0,
            "end_reason": None,
            "readers": 0,
            "prompts": [{"block": 0, "at_seconds": 0.0, "prompt": _PROMPT}],
            "recoveries": [],
            "remixed_from_video_id": None,
            "extended_from_video_id": None,
            "bytes": 0,
            "urls": {name: f"{address}/{end}" for name, end in addresses.items()},
        }
