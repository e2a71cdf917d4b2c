"""``docs/http.md`` tells the addresses, numbers and words that the server has."""

import re

from engine import EndReason, EngineConfig
from server.player.files import NAMES
from server.settings import TransportLimits
from server.videos.boxes import SIGNAL_UUID
from server.videos.schemas import LINGER_MAX
from tests.server.live_server import LiveServer
from tests.server.test_main import ROOT

TEXT = (ROOT / "docs" / "http.md").read_text()
UNTOLD = {"GET /", *(f"GET /{name}" for name in NAMES)}
"""Addresses of the page and its files."""


def test_every_address_is_told(live: LiveServer) -> None:
    assert live.server is not None
    routes = {
        f"{method} {route.path.replace('{video_id}', '{id}')}"
        for route in live.app.routes
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"
    }
    told = set(re.findall(r"`((?:GET|POST|DELETE) /[\w/{}.]*)", TEXT))
    told |= {f"GET {path}" for path in re.findall(r", `(/[\w/]+)`", TEXT)}
    assert told == routes - UNTOLD


def test_numbers_and_words_are_the_servers() -> None:
    config = EngineConfig
    assert f"`linger_seconds` (0-{LINGER_MAX:g})" in TEXT
    assert f"`--keep-seconds` ({config.keep_s:g})" in TEXT
    assert f"{config.kept_bytes // 1024**2} MiB" in TEXT and f"{config.keep.num_bytes // 1024**2} MiB" in TEXT
    assert config.keep_endless.seconds == 120 and "newest two minutes" in TEXT
    assert f"`--lead-target`, {config.lead_target_s:g} s" in TEXT
    assert f"took nothing for {TransportLimits.send_timeout_s:g} s" in TEXT
    assert f"the video plays for {TransportLimits.slow_window_s:g} s" in TEXT
    assert SIGNAL_UUID.hex() in TEXT.replace("-", "")
    reasons = TEXT.partition("`end_reason` of the object:")[2]
    assert {reason.value for reason in EndReason} == set(re.findall(r"`(\w+)`", reasons))
