"""What is read from the engine at the moment of a scrape: levels, not events."""

from engine import Engine, EngineState
from server.metrics.families import Families


class Readings:
    """Brings the gauges up to date. Use it on the engine's event loop."""

    def __init__(self, families: Families, engine: Engine, max_queue: int) -> None:
        """``max_queue``: requests that may wait."""
        self._families, self._engine = families, engine
        families.videos.queue_capacity.set(max_queue)

    def take(self) -> None:
        """Read now."""
        self._engine.count_stalls()
        load, videos = self._engine.load, self._families.videos
        videos.running.set(load.running)
        videos.waiting.set(load.waiting)
        videos.slots.set(load.slots)
        self._families.viewers.buffered.set(load.blocks_buffered)
        self._families.viewers.readers.set(load.readers)
        for state in EngineState:
            self._families.engine.state.labels(state.value).set(state is self._engine.state)
        self._take_workers()

    def _take_workers(self) -> None:
        """Workers of a lost group are down and hold nothing; when they were heard of last means nothing then."""
        workers, fleet = self._families.workers, self._engine.fleet
        loads = {load.rank: load for load in fleet.worker_loads}
        workers.heartbeat.clear()
        for rank in range(len(fleet.facts.plan.placements) if fleet.facts else 0):
            label, load = str(rank), loads.get(rank)
            workers.up.labels(label).set(load is not None)
            workers.pages_ratio.labels(label).set(load.pages_used / max(1, load.num_pages) if load else 0)
            workers.tickets_waiting.labels(label).set(load.tickets_waiting if load else 0)
            if load is not None:
                workers.heartbeat.labels(label).set(load.heard_at)
                workers.pages.labels(label).set(load.num_pages)
