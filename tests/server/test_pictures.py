"""Requests that bring a picture or a clip, at the real server: how it may come, and what is refused."""

import base64
import os
import warnings
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from openai import OpenAI

from engine import EngineOptions, Pixels
from server.videos.decoding import MediaDecoder
from tests.instant import Behaviour
from tests.server.live_server import LiveServer, eventually, serving
from tests.server.media import NO_MEDIA, clip, gradient, greys, still

PICTURE = still(gradient(416, 240))
CLIP = clip(greys(60), 16)
LARGE = still(np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8))
"""More than a body without media may have."""
FORM = {"prompt": "x", "seconds": "1"}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def post(live: LiveServer, path: str = "/v1/videos", **request: Any) -> httpx.Response:
    return httpx.post(f"{live.url}{path}", timeout=30, **request)


def asked(live: LiveServer) -> Pixels:
    """What the workers were to encode last."""
    pictures = live.engine.workers.pictures
    eventually(lambda: bool(pictures))
    return pictures.pop()


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/generate"])
def test_a_picture_comes_as_text_or_as_a_file(live: LiveServer, path: str) -> None:
    data = LARGE if path == "/v1/videos" else PICTURE
    whole = post(live, path, json={"prompt": "x", "seconds": 1, "image": text(data)})
    assert whole.status_code == 200, whole.text
    first = asked(live)
    assert (first.num_frames, first.width_px, first.height_px) == (1, 416, 240)
    for name in ("image", "input_reference"):
        answer = post(live, path, data=FORM, files={name: ("a", data)})
        assert answer.status_code == 200, answer.text
        assert asked(live) == first


def test_a_clip_gives_what_the_next_block_looks_back_on(live: LiveServer) -> None:
    for request in (
        {"json": {"prompt": "x", "seconds": 1, "video": text(CLIP)}},
        {"data": FORM, "files": {"input_reference": CLIP}},
    ):
        assert post(live, **request).status_code == 200
        assert asked(live).num_frames == min(60, live.engine.most_start_frames)


def test_text_in_other_spellings(live: LiveServer) -> None:
    lines = base64.encodebytes(PICTURE).decode().replace("\n", "\\r\\n").replace("/", "\\/")
    body = b'{"seconds": 1,\n "image" : "%b", "prompt": "\\"image\\": \\"AAAA\\""}' % lines.encode()
    answer = post(live, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.json()["prompt"] == '"image": "AAAA"'
    assert asked(live).num_frames == 1
    assert post(live, json={"prompt": "x", "seconds": 1, "image": None}).status_code == 200


def test_a_form_without_a_file_is_a_request_as_any(live: LiveServer) -> None:
    fields = {"prompt": (None, "x"), "seconds": (None, "1"), "seed": (None, "7"), "priority": (None, "0.0")}
    answer = post(live, files=fields)
    assert answer.status_code == 200 and answer.json()["seed"] == 7
    lingering = post(live, "/v1/generate", files={**fields, "linger_seconds": (None, "0.5")})
    assert lingering.status_code == 200


def test_openais_client_sends_a_reference(live: LiveServer) -> None:
    with warnings.catch_warnings(), OpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        warnings.simplefilter("ignore", DeprecationWarning)
        made = client.videos.create(prompt="x", seconds="4", input_reference=("star.png", PICTURE, "image/png"))
    assert made.seconds == "4" and asked(live).num_frames == 1


def refused(answer: httpx.Response, param: str | None, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    message: str = error["message"]
    return message


@pytest.mark.parametrize("name", ["image", "video", "input_reference"])
@pytest.mark.parametrize(
    "value",
    [
        *("https://example.com/a.png", "/etc/passwd", "file:///etc/passwd", "../a.png", "data:image/png;base64,AAAA"),
        *("", "AAA", "A=A=", "????", 7, True, ["AAAA"], {"image_url": "https://example.com/a.png"}),
    ],
)
def test_only_media_itself_is_taken_in_json(shared: LiveServer, name: str, value: object) -> None:
    message = refused(post(shared, json={"prompt": "x", name: value}), name)
    assert message.startswith(f"{name}: this must be the picture or clip itself as base64 text")


@pytest.mark.parametrize("name", ["image", "input_reference[image_url]"])
def test_only_files_are_taken_in_forms(shared: LiveServer, name: str) -> None:
    assert "send a file" in refused(post(shared, files={name: (None, "https://example.com/a.png")}), name)


@pytest.mark.parametrize("what", ["a playlist", "a zip", "a huge PNG"])
def test_what_is_no_media_is_refused(shared: LiveServer, what: str) -> None:
    message = refused(post(shared, data=FORM, files={"video": NO_MEDIA[what]}), "video")
    assert message.startswith("video: this cannot be taken")


def test_other_requests_that_cannot_be(shared: LiveServer) -> None:
    both = {"image": PICTURE, "video": CLIP}
    assert "send one of" in refused(post(shared, data=FORM, files=both), "video")
    assert "no field for a file" in refused(post(shared, data=FORM, files={"mask": PICTURE}), "mask")
    refused(post(shared, data={"prompt": "x", "seed": "1.5"}, files={"image": PICTURE}), "seed")
    refused(post(shared, data={"prompt": "x", "size": "64x64"}, files={"image": PICTURE}), "size")
    refused(post(shared, data={"seconds": "1"}, files={"image": PICTURE}), "prompt")
    refused(post(shared, data={**FORM, "pages": "1"}, files={"image": PICTURE}), "pages")
    twice = [("image", ("a", PICTURE)), ("image", ("b", PICTURE))]
    refused(post(shared, data=FORM, files=twice), "image")
    many = {f"f{number}": (None, "x") for number in range(40)}
    assert "more than 32 parts" in refused(post(shared, files=many), None)


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\n\r\nabc", b'--x\r\nContent-Disposition: form-data; name="prompt"']
)
def test_a_broken_form_is_refused(shared: LiveServer, body: bytes) -> None:
    refused(post(shared, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}), None)
    refused(post(shared, content=body, headers={"Content-Type": "multipart/form-data"}), None)


def test_bodies_are_as_large_as_media_needs() -> None:
    with serving(max_upload=200_000) as live:
        noise = os.urandom(150_000)
        assert post(live, data=FORM, files={"image": noise}).status_code == 400
        assert "200000" in refused(post(live, data=FORM, files={"image": noise * 2}), None, 413)
        assert "200000" in refused(post(live, json={"prompt": "x", "image": text(noise)}), None, 413)
        assert "65536" in refused(post(live, json={"prompt": "x" * 66_000, "image": text(PICTURE)}), None, 413)
        assert "65536" in refused(post(live, files={"prompt": (None, "x" * 66_000)}), None, 413)
        assert httpx.get(f"{live.url}/v1/capabilities").json()["limits"]["upload_bytes"] == 200_000


def test_one_key_for_two_pictures_is_a_conflict(live: LiveServer) -> None:
    def ask(picture: bytes) -> httpx.Response:
        return post(live, data=FORM, files={"image": picture}, headers={"Idempotency-Key": "k"})

    first, again, other = ask(PICTURE), ask(PICTURE), ask(LARGE)
    assert first.json()["id"] == again.json()["id"] and other.status_code == 409


def test_a_model_without_an_encoder_says_so() -> None:
    with serving(Behaviour(takes_pictures=False)) as live:
        message = refused(post(live, data=FORM, files={"input_reference": PICTURE}), "input_reference")
        assert (
            message == "input_reference: instant has no encoder for pictures, so its videos start from a prompt alone"
        )
        assert httpx.get(f"{live.url}/v1/capabilities").json()["takes_pictures"] is False


def test_a_picture_that_workers_cannot_encode_ends_its_video(live: LiveServer) -> None:
    live.behaviour.fails_pictures = True
    answer = post(live, "/v1/generate", data=FORM, files={"image": PICTURE})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "engine_oom"


@pytest.mark.slow
def test_memory_is_flat_whatever_comes(live: LiveServer) -> None:
    """Uploads that are refused and taken, again and again: what one left would be seen after ten."""
    process, noise = psutil.Process(), os.urandom(4 * 2**20)
    whole_text = text(noise)

    def upload() -> None:
        refused(post(live, data=FORM, files={"image": noise}), "image")
        refused(post(live, json={"prompt": "x", "image": whole_text}), "image")
        assert post(live, data=FORM, files={"image": PICTURE + noise}).status_code == 200
        asked(live)

    for _ in range(2):
        upload()
    before = process.memory_info().rss
    for _ in range(5):
        upload()
    assert process.memory_info().rss - before < 5 * len(noise), "what was uploaded is kept"


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"max_per_client": 1}, "rate_limited"), ({"engine": EngineOptions(max_videos=1, max_queue=0)}, "overloaded")],
    ids=["limit of a client", "full queue"],
)
def test_nothing_is_decoded_for_who_may_have_no_video(
    settings: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Behaviour(first_block_s=3600), **settings) as live:
        request = {"json": {"prompt": "x", "image": text(PICTURE)}, "headers": {"Idempotency-Key": "a"}}
        first = post(live, **request)
        monkeypatch.setattr(MediaDecoder, "decode", _never)
        again = post(live, **request)
        assert first.status_code == again.status_code == 200 and first.json()["id"] == again.json()["id"]
        for path in ("/v1/videos", "/v1/generate"):
            answer = post(live, path, json={"prompt": "x", "image": text(b"no picture")})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, code)


async def _never(*_arguments: object) -> Pixels:
    raise AssertionError("it was decoded")
