"""The tables of `docs/metrics.md`, made from the families themselves: ``python -m tests.server.metrics_table`` writes
them anew."""

import asyncio
import itertools
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from server.app import create_app
from server.metrics import families as lists
from server.metrics.families import PREFIX, Families
from server.metrics.gpu_families import GPU_FAMILIES, GPU_INFO, NVML_AVAILABLE
from server.metrics.readings import Readings
from server.settings import Settings
from tests.instant import InstantEngine
from tests.server.test_metrics_work import Book

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
OPEN_LABELS = frozenset(
    {"route", "method", "code", "rank", "edge", "device", "version", "python", "torch", "stages", "item"}
)
"""Labels whose values depend on the deployment; the text says what bounds them."""
MANY = 10
"""More values than this are not listed."""


def tables() -> str:
    """One table a subject: name, type, labels with their values, meaning."""
    book = Book(5)
    asyncio.run(_read_an_engine(book.families))
    book.families.engine.build.labels("", "", "")
    return "\n\n".join([*(_table(title, rows(group)) for title, group in _subjects(book.families)), _gpu_table()])


async def _read_an_engine(families: Families) -> None:
    """Have the series that are read from an engine at a scrape, and those of its routes."""
    engine = InstantEngine()
    create_app(Settings(), engine, families).build_middleware_stack()
    await engine.start()
    Readings(families, engine, max_queue=8).take()
    await engine.stop()


def _subjects(families: Families) -> list[tuple[str, object]]:
    return [
        ("What viewers feel", families.viewers),
        ("Videos and queue", families.videos),
        ("Stages of the chain", families.stages),
        ("Workers", families.workers),
        ("Engine and process", families.engine),
        ("HTTP", families.http),
    ]


def rows(group: object) -> list[tuple[str, str, str, str]]:
    found = []
    for metric in vars(group).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        family = metric.describe()[0]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.append((name, family.type, _labels(metric), family.documentation))
    return found


def _labels(metric: MetricWrapperBase) -> str:
    values: dict[str, list[str]] = {}
    for sample in itertools.chain.from_iterable(family.samples for family in metric.collect()):
        for label, value in sample.labels.items():
            if label != "le":
                values.setdefault(label, []).append(value)
    return "; ".join(_label(label, list(dict.fromkeys(found))) for label, found in values.items())


def _label(name: str, values: list[str]) -> str:
    listed = name not in OPEN_LABELS and 1 < len(values) <= MANY
    return f"`{name}`: {', '.join(values)}" if listed else f"`{name}`"


def _gpu_table() -> str:
    found = [
        (
            f"{PREFIX}_{NVML_AVAILABLE}",
            "gauge",
            "",
            "1 if NVML gives GPU readings, 0 if there is no driver or library.",
        ),
        (f"{PREFIX}_{GPU_INFO}", "gauge", "`gpu`; `uuid`; `name`; `driver`", "Which GPU an index is, always 1."),
    ]
    for family in GPU_FAMILIES:
        name = f"{PREFIX}_{family.name}{'_total' if family.is_total else ''}"
        kind = "counter" if family.is_total else "gauge"
        found.append((name, kind, "; ".join(f"`{label}`" for label in family.labels), family.meaning))
    return _table("GPUs", found)


def _table(title: str, found: list[tuple[str, str, str, str]]) -> str:
    lines = [f"### {title}", "", "| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {labels} | {meaning} |" for name, kind, labels, meaning in found]
    return "\n".join(lines)


def with_tables(document: str) -> str:
    """The document, with the tables as they are now."""
    head, rest = document.split(BEGIN)
    _, tail = rest.split(END)
    kinds = "\n".join(f"- `{component}`: {', '.join(codes)}" for component, codes in lists.ERROR_KINDS.items())
    return f"{head}{BEGIN}\n\n{tables()}\n\n`kind` of `hiar_errors_total`, by `component`:\n\n{kinds}\n\n{END}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
