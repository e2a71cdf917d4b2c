"""``docs/experiments.md``: every row names tests, and they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [line for line in (ROOT / "docs" / "experiments.md").read_text().splitlines() if re.match(r"\| [A-Z]\d", line)]


def test_every_experiment_names_tests_that_are_there() -> None:
    assert ROWS
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {test}"


def test_no_experiment_is_told_twice() -> None:
    numbers = [number for row in ROWS for number in row.split("|")[1].split(",")]
    assert len({number.strip() for number in numbers}) == len(numbers)
