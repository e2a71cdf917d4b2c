"""Writes dashboards, rules and runbooks: ``python -m deploy.observability``.

With ``--preview FOLDER URL`` it draws the dashboards from a Prometheus instead.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from deploy.observability.alerts import ALERT_GROUPS, ALERTS, RECORD_GROUPS
from deploy.observability.boards import Board, board_json
from deploy.observability.capacity import CAPACITY
from deploy.observability.pipeline import PIPELINE
from deploy.observability.reliability import RELIABILITY_BOARD
from deploy.observability.rules import rules_yaml, runbooks_markdown
from deploy.observability.viewers import VIEWERS

ROOT = Path(__file__).resolve().parents[2]
CHART = Path("deploy/helm/hiar-server")
BOARDS: tuple[Board, ...] = (VIEWERS, PIPELINE, CAPACITY, RELIABILITY_BOARD)
_WRITTEN_BY = "Written by python -m deploy.observability; change it there."


def outputs() -> Iterator[tuple[Path, str]]:
    """Every file, by its path from the root of the project, and what it holds."""
    for board in BOARDS:
        yield CHART / "dashboards" / board.file_name, json.dumps(board_json(board), indent=2) + "\n"
    yield CHART / "rules" / "records.yaml", rules_yaml(RECORD_GROUPS, _WRITTEN_BY)
    yield CHART / "rules" / "alerts.yaml", rules_yaml(ALERT_GROUPS, _WRITTEN_BY)
    heading = f"<!-- {_WRITTEN_BY} -->\n\n"
    yield Path("deploy/observability/runbooks.md"), heading + runbooks_markdown(ALERTS).rstrip() + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.observability", description=__doc__)
    parser.add_argument("--preview", nargs=2, metavar=("FOLDER", "URL"), help="draw the dashboards from a Prometheus")
    parser.add_argument("--seconds", type=float, default=3600, help="how much of the past to draw (default: 3600)")
    options = parser.parse_args()
    if options.preview:
        _preview(Path(options.preview[0]), options.preview[1], options.seconds)
    else:
        _write()


def _preview(folder: Path, url: str, seconds: float) -> None:
    from deploy.observability.preview import draw  # noqa: PLC0415 - needs matplotlib; writing does not

    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        print(draw(board, folder, url, seconds))


def _write() -> None:
    for path, text in outputs():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
        print(path)


if __name__ == "__main__":
    main()
