"""What this server makes, as far as its document tells: sizes, rates, lengths and a name, from the model's manifest."""

from dataclasses import dataclass
from typing import Any, Self

from engine import Manifest
from server.settings import Settings
from server.videos.schemas import SECONDS_MAX


@dataclass(frozen=True, kw_only=True)
class Served:
    """What can be asked for."""

    model: str
    sizes: tuple[str, ...]
    """The first is the default."""
    fps: int
    max_fps: int
    max_seconds: float | None
    """None is no limit of this server."""
    has_keys: bool
    """Whether keys are asked for."""

    @classmethod
    def of(cls, manifest: Manifest, settings: Settings) -> Self:
        """Read it off the model and the settings."""
        return cls(
            model=manifest.name,
            sizes=tuple(manifest.video.size_names),
            fps=manifest.video.fps,
            max_fps=manifest.video.max_fps,
            max_seconds=settings.max_seconds,
            has_keys=settings.keys is not None,
        )


def narrowed(schemas: dict[str, Any], served: Served) -> dict[str, Any]:
    """The schemas of requests with what this server takes, in place of what any server could."""
    for schema in schemas.values():
        fields = schema.get("properties", {})
        if schema.get("additionalProperties", True) or "seconds" not in fields:
            continue
        _narrow(fields["seconds"], "number", maximum=served.max_seconds or SECONDS_MAX)
        if "size" not in fields:
            continue
        _narrow(fields["size"], "string", enum=list(served.sizes))
        _narrow(fields["fps"], "integer", maximum=served.max_fps)
        _narrow(fields["model"], "string", enum=[served.model])
        fields["size"]["examples"] = [served.sizes[0]]
        fields["fps"]["examples"] = [served.fps]
    return schemas


def _narrow(field: dict[str, Any], kind: str, **bounds: Any) -> None:
    """Set bounds of the branch of a field that is of a kind."""
    for branch in field["anyOf"]:
        if branch.get("type") == kind:
            branch.update(bounds)
