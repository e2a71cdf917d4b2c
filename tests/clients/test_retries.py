"""What is asked again, when, and how often: the steps of ``exchange`` without a network."""

from dataclasses import dataclass, field
from typing import TypeVar

import httpx
import pytest

from hiar_client import HiarError, InvalidRequest, Overloaded, Retries, UnexpectedAnswer, Unreachable, requests
from hiar_client.exchange import DEFAULT_RETRIES, Answer, Asking, Broken, Request, Send, Step, Steps, Wait
from hiar_client.outage import Outage
from hiar_client.wire import built, trusts_environment

_T = TypeVar("_T")
OK = Answer(status=200, headers={})
REFUSED = Broken("refused", is_refused=True)
CUT = Broken("reset")
BUSY = b'{"error": {"code": "overloaded", "message": "no place", "param": null, "type": "rate_limit_error"}}'


def refusal(status: int, body: bytes = BUSY, **headers: str) -> Answer:
    return Answer(status=status, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


@dataclass
class Script:
    """A server that answers as it is told to, and a clock that waits move on."""

    answers: list[Answer | Broken]
    now_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def run(self, steps: Steps[_T]) -> _T:
        step: Step = next(steps)
        try:
            while True:
                if isinstance(step, Wait):
                    self.waits.append(step.seconds)
                    self.now_s += step.seconds
                    step = steps.send(None)
                    continue
                assert isinstance(step, Send)
                self.asked.append(step.request)
                answer = self.answers.pop(0)
                step = steps.throw(answer) if isinstance(answer, Broken) else steps.send(answer)
        except StopIteration as end:
            result: _T = end.value
            return result


def ask(script: Script, request: Request, retries: Retries = DEFAULT_RETRIES) -> Answer:
    return script.run(Asking("http://there", retries, lambda: script.now_s).ask(request))


def test_retry_after_is_waited_for_and_a_little_longer() -> None:
    script = Script([refusal(429, retry_after="10"), refusal(503, retry_after="2"), OK])
    assert ask(script, requests.create("a fox", {})) == OK
    assert 10 <= script.waits[0] <= 12.5 and 2 <= script.waits[1] <= 2.5
    assert len({request.headers["Idempotency-Key"] for request in script.asked}) == 3, "each was refused for good"
    assert len({request.content for request in script.asked}) == 1


def test_a_lost_answer_is_asked_for_again_with_longer_and_longer_waits() -> None:
    script = Script([refusal(408), refusal(502, b"<html>"), CUT, OK])
    assert ask(script, requests.create("a fox", {})) == OK
    assert script.asked[1:] == [script.asked[1]] * 3, "the key tells the server that it is the same request"
    for wait_s, longest_s in zip(script.waits, (0.25, 0.5, 1.0), strict=True):
        assert longest_s / 2 <= wait_s <= longest_s


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([refusal(429, retry_after="10")] * 4, Overloaded),
        ([CUT] * 4, Unreachable),
        ([refusal(429, retry_after="10"), refusal(429, retry_after="55")], Overloaded),
    ],
    ids=["attempts", "attempts behind cuts", "time"],
)
def test_attempts_and_time_are_bounded(answers: list[Answer | Broken], kind: type[HiarError]) -> None:
    script = Script(list(answers))
    with pytest.raises(kind):
        ask(script, requests.video("v"))
    assert not script.answers


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (requests.video("v"), refusal(400, b'{"error": {"code": "invalid_request", "message": "seed"}}')),
        (requests.video("v"), refusal(404, b"<html>")),
        (requests.video("v"), refusal(429)),
        (requests.change_prompt("v", "a wolf"), refusal(429, retry_after="1")),
        (requests.remix("v", "a wolf"), CUT),
        (requests.extend("v", 1, None), CUT),
        (requests.video("v"), REFUSED),
    ],
    ids=["invalid", "elsewhere", "no time", "prompt", "remix", "extend", "no server"],
)
def test_what_cannot_change_or_must_not_come_twice_is_asked_once(request_: Request, answer: Answer | Broken) -> None:
    script = Script([answer])
    with pytest.raises(HiarError):
        ask(script, request_)
    assert script.waits == []


def test_a_server_that_was_heard_before_is_waited_for() -> None:
    script = Script([OK, REFUSED, OK])
    asking = Asking("http://there", Retries(), lambda: script.now_s)
    script.run(asking.ask(requests.video("v")))
    assert script.run(asking.ask(requests.video("v"))) == OK


def test_a_running_video_of_another_server_is_asked_for_there() -> None:
    script = Script([refusal(307, b"", location="http://other/v1/videos/v"), OK])
    ask(script, requests.video("v"))
    assert script.asked[1].path == "http://other/v1/videos/v"
    endless = Script([refusal(307, b"", location="/")] * 9)
    with pytest.raises(UnexpectedAnswer):
        ask(endless, requests.video("v"))
    assert len(endless.asked) == 5


@pytest.mark.parametrize(
    ("url", "path", "is_sent"),
    [
        ("http://here", "/v1/videos", True),
        ("http://here", "http://other/v1/videos", True),
        ("https://here", "https://other/v1/videos", True),
        ("https://here", "http://here/v1/videos", False),
    ],
)
def test_the_key_goes_where_the_server_sends_us_but_not_in_the_clear(url: str, path: str, is_sent: bool) -> None:
    with httpx.Client(base_url=url) as http:
        request = built(http, Request(method="GET", path=path), "hiar_alice")
    assert ("Authorization" in request.headers) == is_sent


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::1]", "gpu-box", "10.0.0.1"])
def test_a_proxy_of_the_environment_is_asked_for_other_machines_only(host: str) -> None:
    assert trusts_environment(f"http://{host}:8000") == (host in {"gpu-box", "10.0.0.1"})


def test_an_error_tells_all_that_the_answer_did() -> None:
    body = b'{"error": {"code": "invalid_request", "message": "seed: no", "param": "seed", "type": "x"}}'
    with pytest.raises(InvalidRequest) as caught:
        ask(Script([refusal(400, body, x_request_id="r_1")]), requests.video("v"))
    error = caught.value
    assert (error.code, error.message, error.param, error.status) == ("invalid_request", "seed: no", "seed", 400)
    assert (error.request_id, error.retry_after_s, error.retryable) == ("r_1", None, False)


def test_an_outage_is_over_when_something_comes() -> None:
    now_s = [0.0]
    outage = Outage(Retries(), 60, lambda: now_s[0])
    error = Unreachable("no", retryable=True)
    assert outage.wait_s(error) == 0
    assert outage.wait_s(error) > 0
    now_s[0] = 59.9
    with pytest.raises(Unreachable):
        outage.wait_s(error)
    outage.over()
    assert outage.wait_s(error) == 0
    with pytest.raises(Unreachable):
        outage.wait_s(Unreachable("for good"))
