"""The official ``openai`` client finds what it expects: resources, cursors, files, and its own types of errors.

Its ``videos.create`` sends a form unless it is told to send JSON.
"""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import Video

from engine import EngineOptions, WorkerLost
from tests.instant import MANIFEST, Behaviour
from tests.server.keyed_server import ALICE
from tests.server.live_server import LiveServer, eventually, serving

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
AS_JSON = {"Content-Type": "application/json"}


def client_of(live: LiveServer, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(shared: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(shared) as made:
        yield made


def create(client: openai.OpenAI, prompt: str = "a red star", **fields: Any) -> Video:
    extra = {"extra_body": fields.pop("extra")} if "extra" in fields else {}
    return client.videos.create(prompt=prompt, extra_headers=AS_JSON, **extra, **fields)


def completed(client: openai.OpenAI, **fields: Any) -> Video:
    return client.videos.poll(create(client, **fields).id, poll_interval_ms=10)


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == MANIFEST.name and client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-5")
    assert raised.value.code == "not_found" and raised.value.param == "model"


def test_a_video_from_its_request_to_its_end(client: openai.OpenAI) -> None:
    asked = create(client, model=MANIFEST.name, seconds="2", size=MANIFEST.video.size_names[1])
    assert asked.object == "video" and asked.status in {"queued", "in_progress", "completed"}
    video = client.videos.poll(asked.id, poll_interval_ms=10)
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "2", "832x480")
    assert video.prompt == "a red star" and video.completed_at is not None and video.error is None
    content = client.videos.download_content(video.id)
    data = content.read()
    assert data[4:8] == b"ftyp" and len(data) == int(content.response.headers["content-length"])
    assert content.response.headers["content-type"].startswith("video/mp4")
    assert client.videos.retrieve(video.id) == video


def test_a_list_is_read_page_by_page() -> None:
    with serving() as live, client_of(live) as client:
        made = [completed(client, prompt=f"video {n}", seconds="1").id for n in range(5)]
        pages = list(client.videos.list(limit=2).iter_pages())
        assert [[video.id for video in page.data] for page in pages] == [made[:2:-1], made[2:0:-1], made[:1]]
        assert [video.id for video in client.videos.list(limit=2, order="asc")] == made
        assert [video.id for video in client.videos.list(limit=3, after=made[3])] == made[2::-1]


def test_another_version_and_forgetting(client: openai.OpenAI) -> None:
    first = completed(client, seconds="1", extra={"seed": 7})
    other = client.videos.remix(first.id, prompt="a blue star")
    assert other.remixed_from_video_id == first.id and other.prompt == "a blue star"
    assert client.videos.poll(other.id, poll_interval_ms=10).status == "completed"
    gone = client.videos.delete(first.id)
    assert gone.deleted and gone.id == first.id and gone.object == "video.deleted"
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(first.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": ""}, "prompt"), ({"size": "1x1"}, "size"), ({"seconds": "0"}, "seconds"), ({"model": "x"}, "model")],
)
def test_what_is_wrong_is_typed_and_names_the_field(client: openai.OpenAI, fields: dict[str, str], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        create(client, **fields)
    error = raised.value
    assert (error.status_code, error.code, error.type) == (400, "invalid_request", "invalid_request_error")
    assert error.param == param and param in error.message
    assert error.request_id is not None and error.request_id.startswith("r_")


def test_a_wrong_key_and_a_right_one(clean: LiveServer) -> None:
    with client_of(clean, "wrong") as client, pytest.raises(openai.AuthenticationError) as raised:
        client.videos.list()
    assert (raised.value.code, raised.value.type) == ("unauthorized", "authentication_error")
    with client_of(clean, ALICE) as client:
        assert client.videos.list().data == []


def test_a_failed_video_tells_why() -> None:
    behaviour = Behaviour(fail_at=1, failure=WorkerLost("a worker died"))
    with serving(behaviour) as live, client_of(live) as client:
        video = completed(client, seconds="4")
        assert video.status == "failed" and video.error is not None
        assert (video.error.code, video.error.message) == ("worker_lost", "a worker died")


def test_too_many_are_told_when_to_come_back() -> None:
    options = EngineOptions(max_videos=1, max_queue=0)
    with serving(Behaviour(first_block_s=3600), engine=options) as live, client_of(live) as client:
        create(client)
        eventually(lambda: live.engine.load.running == 1)
        with pytest.raises(openai.RateLimitError) as raised:
            create(client)
    error = raised.value
    assert (error.code, error.type, error.param) == ("overloaded", "rate_limit_error", None)
    assert int(error.response.headers["retry-after"]) > 0
