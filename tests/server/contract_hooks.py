"""What the schema of a request cannot say, told to schemathesis: see ``test_contract``."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.generation.modes import GenerationMode

MEDIA = ("image", "video", "input_reference")
UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.hook
def filter_case(context: HookContext, case: Case) -> bool:
    """Headers that are not known are nobody's business: proxies and browsers add some."""
    return UNKNOWN_HEADER not in (case.headers or {})


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Good requests name videos and blocks that there are or come next, and prompts in order of time before the end of
    what is made here; bytes made up are no picture.
    """
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.query:
        for name in ("after", "_HLS_part"):  # needs a video of the list, and _HLS_msn
            case.query.pop(name, None)
        if case.query.get("_HLS_msn", 0) not in range(2):  # waits for one of the next two blocks, no later one
            case.query.pop("_HLS_msn")
    body = case.body
    if not isinstance(body, dict):
        return
    case.body = body = {name: value for name, value in body.items() if name not in MEDIA}
    if isinstance(body.get("prompt"), list):
        case.body = body = {**body, "prompt": [{**body["prompt"][0], "at_seconds": 0}]}
    if isinstance(body.get("seconds"), str):
        case.body = {**body, "seconds": "1"}
