"""Hostile requests to a real server process; the benchmark sends twenty times as many."""

import sys

import pytest

from benchmarks.fuzz.cases import cases
from benchmarks.fuzz.run import fuzz
from tests.server.test_document import DOCUMENT

SERVE = [sys.executable, "-m", "tests.server.serve_instant"]


def test_the_same_seed_gives_the_same_cases() -> None:
    made = [cases(DOCUMENT, "localhost", ["video_a"], 200, seed) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.slow
@pytest.mark.in_turn
def test_hostile_requests_do_no_harm() -> None:
    outcome = fuzz([*SERVE, "painted"], num_cases=500, seed=1, num_connections=4, has_keys=True)
    assert outcome.faults == []
    assert outcome.statuses["200"] > 10 and outcome.statuses["400"] > 50 and outcome.statuses["401"] > 50
    assert sum(outcome.statuses.values()) == 500


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_server_that_does_harm_is_told() -> None:
    outcome = fuzz([*SERVE, "buggy"], num_cases=120, seed=1, num_connections=4)
    assert any("500" in fault for fault in outcome.faults) and any("tracebacks" in fault for fault in outcome.faults)
