"""PromQL for dashboards: short forms of the few shapes that panels are made of.

Every selector carries the dashboards' variables, so that one place decides what a panel is limited to. Names are given
without the ``hiar_`` prefix. Knows no panel.
"""

PREFIX = "hiar_"
SCOPE = 'namespace=~"$namespace",pod=~"$pod"'
WINDOW = "$__rate_interval"


def series(name: str, *matchers: str) -> str:
    """Select metric ``name``; ``matchers`` are further label matchers."""
    return f"{PREFIX}{name}{{{','.join((SCOPE, *matchers))}}}"


def of_process(name: str, window: str = "") -> str:
    """A metric that every process with a Prometheus client has, of our servers only; with ``window`` its rate."""
    chosen = f"{name}{{{SCOPE}}}"
    measured = f"rate({chosen}[{window}])" if window else chosen
    return f"{measured} and on (namespace, pod, instance) {series('build_info')}"


def total(name: str, *matchers: str, by: str = "") -> str:
    """Sum of a gauge over the selected pods, or for each value of the labels ``by``."""
    return f"sum{_by(by)}({series(name, *matchers)})"


def rate(name: str, *matchers: str, by: str = "") -> str:
    """What a counter grows per second."""
    return f"sum{_by(by)}(rate({series(name, *matchers)}[{WINDOW}]))"


def grown(name: str, *matchers: str, by: str = "", over: str = WINDOW) -> str:
    """What a counter has grown in the interval ``over``."""
    return f"sum{_by(by)}(increase({series(name, *matchers)}[{over}]))"


def quantile(part: float, name: str, *matchers: str, by: str = "") -> str:
    """Quantile of a histogram; NaN while nothing is observed."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part:g}, {rate(f'{name}_bucket', *matchers, by=labels)})"


def mean(name: str, *matchers: str, by: str = "") -> str:
    """Mean of a histogram's observations; NaN while nothing is observed."""
    return f"{rate(f'{name}_sum', *matchers, by=by)} / {rate(f'{name}_count', *matchers, by=by)}"


def buckets(name: str, *matchers: str) -> str:
    """What a heatmap of a histogram is drawn from."""
    return grown(f"{name}_bucket", *matchers, by="le")


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
