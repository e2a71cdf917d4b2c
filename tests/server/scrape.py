"""A scrape of `/metrics`, as values by series."""

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Scrape:
    kinds: dict[str, str]
    """Of each family: counter, gauge or histogram."""
    values: dict[tuple[str, frozenset[tuple[str, str]]], float]
    cumulative: frozenset[tuple[str, frozenset[tuple[str, str]]]]
    """Series that must never fall: counters and histograms (one of what can be negative comes without a sum)."""

    def value(self, name: str, /, **labels: str) -> float:
        return self.values[name, frozenset(labels.items())]

    def total(self, name: str, /, **labels: str) -> float:
        """Of all series that have these labels."""
        return sum(
            value for (found, had), value in self.values.items() if found == name and frozenset(labels.items()) <= had
        )

    def label_values(self, label: str) -> set[str]:
        return {value for _, labels in self.values for name, value in labels if name == label}


def parse(text: str) -> Scrape:
    kinds, values, cumulative = {}, {}, set()
    for family in text_string_to_metric_families(text):
        kinds[family.name] = family.type
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in values, f"{series} is there twice"
            values[series] = sample.value
            if family.type in {"counter", "histogram"}:
                cumulative.add(series)
    return Scrape(kinds, values, frozenset(cumulative))


def scrape(url: str) -> Scrape:
    answer = httpx.get(f"{url}/metrics", timeout=30)
    assert answer.status_code == 200
    return parse(answer.text)


def fallen(before: Scrape, after: Scrape) -> list[str]:
    """Counters that went backwards or vanished, which none may."""
    return [
        f"{name}{dict(labels)}: {before.values[name, labels]} -> {after.values.get((name, labels))}"
        for name, labels in before.cumulative
        if after.values.get((name, labels), -1) < before.values[name, labels]
    ]
