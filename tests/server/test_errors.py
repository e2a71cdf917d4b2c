"""The table of errors is complete, agrees with the engine's own types, and is what answers, boxes and metrics read."""

import ast
import asyncio
from collections.abc import Iterator

import pytest

import engine.errors
import server.errors
from engine import (
    EndReason,
    Engine,
    EngineConfig,
    EngineState,
    EngineUnavailable,
    HiarError,
    Overloaded,
    PromptAt,
    RequestError,
    VideoFailed,
    VideoRequest,
    WorkerLost,
)
from engine.errors import START_FAILURES, VIDEO_FAILURES
from server.errors import ERRORS, ApiError, ErrorRow, finish_of, from_engine, row_of, unavailable
from server.metrics.families import ERROR_KINDS
from server.metrics.words import Finish, Rejection
from tests.instant import MANIFEST
from tests.server.test_main import ROOT


def kinds_of(base: type[HiarError]) -> Iterator[type[HiarError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds_of(kind)


def test_every_error_of_the_engine_has_a_row() -> None:
    kinds = {kind for kind in kinds_of(HiarError) if kind.__module__ == engine.errors.__name__}
    assert len(kinds) > 10
    assert kinds - set(START_FAILURES.values()) == {row.kind for row in ERRORS if row.kind is not None}


def test_the_server_has_no_errors_beside_the_table() -> None:
    assert all(kind.__module__.startswith(("engine.", "tests.")) for kind in kinds_of(HiarError))
    trees = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "server").rglob("*.py"))}
    rows = {name for name, value in vars(server.errors).items() if isinstance(value, ErrorRow)}
    assert len(rows) == len(ERRORS)
    raised = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                elsewhere = path.name != "errors.py"
                assert node.func.id != "ErrorRow" or not elsewhere, path
                if node.func.id == "ApiError" and elsewhere:
                    raised.add(ast.unparse(node.args[0]))
    assert len(raised) > 9 and raised <= rows


def test_an_answer_outside_the_table_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="teapot"):
        ApiError(ErrorRow("teapot", 418), "short and stout")


@pytest.mark.parametrize("row", [row for row in ERRORS if row.kind is not None], ids=lambda row: row.code)
def test_a_row_agrees_with_the_engines_type(row: ErrorRow) -> None:
    assert row.kind is not None
    assert (row.retry_s is not None) == row.kind.retryable
    assert row.kind.code in {other.code for other in ERRORS if other.kind is row.kind}


def test_callers_faults_are_4xx_and_ours_are_5xx_or_say_when_to_ask_again() -> None:
    for row in ERRORS:
        assert 400 <= row.status < 600
        if row.kind is not None and issubclass(row.kind, RequestError):
            assert row.status < 500 and row.retry_s is None
        if row.retry_s is not None:
            assert row.status in {425, 429, 503, 507} and row.retry_s >= 1


def test_the_nearest_type_and_its_code_choose_the_row() -> None:
    class NewerLoss(WorkerLost):
        code = "newer_loss"

    assert row_of(NewerLoss("gone")).code == "worker_lost"
    assert row_of(EngineUnavailable("x", 1.0, "starting")).code == "starting"
    assert row_of(EngineUnavailable("x", 1.0, "draining")).rejected is Rejection.DRAINING
    assert row_of(EngineUnavailable("x", 1.0, "a new word")).code == "engine_unavailable"
    assert row_of(next(iter(START_FAILURES.values()))("x")).status == 500


def test_what_the_error_says_of_a_retry_wins_over_the_row() -> None:
    assert from_engine(Overloaded("full", 2.2)).headers == {"Retry-After": "3"}
    assert from_engine(Overloaded("full", 0.0)).headers == {"Retry-After": "1"}
    assert from_engine(WorkerLost("gone")).headers == {"Retry-After": "1"}
    assert unavailable(EngineState.STARTING, "soon").headers == {"Retry-After": "5"}
    assert from_engine(RequestError("no", "size")).headers == {}
    assert from_engine(RequestError("no", "size")).param == "size"


def test_metrics_know_every_word_of_the_table() -> None:
    assert {row.rejected for row in ERRORS} - {None} == set(Rejection)
    assert {row.finish for row in ERRORS} - {None} | {finish_of(reason) for reason in EndReason} == set(Finish)
    failures = [row for row in ERRORS if row.kind is not None and issubclass(row.kind, VideoFailed)]
    assert set(ERROR_KINDS["video"]) == {row.code for row in failures} > set(VIDEO_FAILURES)
    assert set(ERROR_KINDS["http"]) == {row.code for row in ERRORS}


@pytest.mark.parametrize("state", [state for state in EngineState if state is not EngineState.READY])
def test_a_refused_video_and_the_probe_agree_on_the_state(state: EngineState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "state", state)
    request = VideoRequest(prompts=(PromptAt(at_s=0, text="x"),), width_px=416, height_px=240, fps=16)

    async def refused() -> EngineUnavailable:
        engine = Engine(EngineConfig(manifest=MANIFEST))
        with pytest.raises(EngineUnavailable) as caught:
            await engine.open(request)
        await engine.stop()
        return caught.value

    told, shown = from_engine(asyncio.run(refused())), unavailable(state, "the probe's words")
    assert (told.row, told.headers) == (shown.row, shown.headers)
