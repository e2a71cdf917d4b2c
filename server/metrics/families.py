"""Every metric family the server has: name, labels, buckets and meaning. Dashboards and alerts are written to this.

Each label value is known before anything happens and its child is made at once, so that every series exists from the
first scrape; labels ``rank`` and ``edge`` get theirs when the workers are placed, before the engine is ready. No label
holds an id, a path or a prompt. Names follow the Prometheus conventions: base units, ``_total``, no colons.

Words of label values are the engine's and the table of errors'. Reads no engine and no request: others fill these in.
"""

from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from engine import EngineState, LossReason, Pace
from server.errors import ERRORS
from server.metrics.words import Finish, Rejection

PREFIX = "hiar"

PROTOCOLS = ("fmp4", "hls")
RECOVERY_WAYS = ("exact", "approximate")
START_PHASES = ("measure", "load", "warm_up")
PASSES = ("denoise", "cache", "fused")
IDLE_CAUSES = ("input", "output", "none")
ERROR_KINDS = {
    "video": tuple(dict.fromkeys(row.code for row in ERRORS if row.finish is Finish.ENGINE_ERROR)),
    "http": tuple(dict.fromkeys(row.code for row in ERRORS)),
}
"""By component: ``video`` is the code a running video failed with, ``http`` the code of an answer."""

_WAITS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FIRST_S = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60, 120)
_VIDEO_S = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
_BLOCK_S = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1, 1.25, 1.5, 2, 3, 5, 10)
_LEAD_S = (-10, -5, -2, -1, -0.5, 0, 0.25, 0.5, 1, 2, 3, 5, 10, 20)
_PROMPT_S = (0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60)
_FACTORS = (0.25, 0.5, 0.75, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20)
_PASS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2.5, 5)
_TRANSFER_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_RECEIVE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10)
_RECOVERY_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_HTTP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SEGMENT_BYTES = tuple(float(2**power) for power in range(12, 25))


class _Group:
    """Families of one subject. A name here lacks the prefix, a counter's also ``_total``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def _counter(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, meaning, labels, namespace=PREFIX, registry=self._registry)

    def _gauge(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, meaning, labels, namespace=PREFIX, registry=self._registry)

    def _histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(name, meaning, labels, namespace=PREFIX, buckets=buckets, registry=self._registry)


class ViewerFamilies(_Group):
    """What a viewer feels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.first_segment = self._histogram(
            "time_to_first_segment_seconds", "From request to the first segment sent, the queue included.", _FIRST_S
        )
        self.block_interval = self._histogram(
            "block_interval_seconds", "Between two blocks of one video, as they leave the chain.", _BLOCK_S
        )
        self.lead = self._histogram(
            "stream_lead_seconds", "How far ahead of its reader's deadline a block of a realtime video came.", _LEAD_S
        )
        self.late = self._counter("blocks_late", "Blocks of realtime videos that came after their playback deadline.")
        self.stalled = self._counter(
            "stream_stalled_seconds", "Playback of realtime videos stood still, waiting for a block."
        )
        self.prompt_update = self._histogram(
            "prompt_update_latency_seconds", "From a prompt change to the first block with it, as read.", _PROMPT_S
        )
        self.realtime_factor = self._histogram(
            "video_realtime_factor",
            "Seconds of playback a video made a second, from its place to its last block.",
            _FACTORS,
        )
        self.blocks_generated = self._counter("blocks_generated", "Blocks that left the chain.")
        self.frames_generated = self._counter("frames_generated", "Frames that left the chain.")
        self.video_generated = self._counter("video_generated_seconds", "Video that left the chain.")
        self.blocks_delivered = self._counter("blocks_delivered", "Blocks that readers took.", ("pace",))
        self.video_delivered = self._counter("video_delivered_seconds", "Video sent to clients.", ("protocol",))
        self.sent_bytes = self._counter("stream_sent_bytes", "Bytes of video streams sent.", ("protocol",))
        self.send_blocked = self._counter("stream_send_blocked_seconds", "Time that sends waited for slow clients.")
        self.buffered = self._gauge("stream_buffered_segments", "Encoded blocks that no reader has taken.")
        self.readers = self._gauge("stream_readers", "Readers of running videos.")
        self.segment_bytes = self._histogram("segment_size_bytes", "Bytes of an encoded block.", _SEGMENT_BYTES)
        for pace in Pace:
            self.blocks_delivered.labels(pace)
        for protocol in PROTOCOLS:
            self.video_delivered.labels(protocol)
            self.sent_bytes.labels(protocol)


class VideoFamilies(_Group):
    """Videos, their queue and their ends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.running = self._gauge("videos_running", "Videos being made.")
        self.waiting = self._gauge("videos_waiting", "Requests in the queue.")
        self.slots = self._gauge("video_slots", "Videos that can be made at the same time.")
        self.queue_capacity = self._gauge("video_queue_capacity", "Requests that may wait.")
        self.finished = self._counter("videos_finished", "Videos that ended, each once.", ("reason",))
        self.rejected = self._counter("requests_rejected", "Requests for a video that were refused.", ("reason",))
        self.queue_time = self._histogram("video_queue_time_seconds", "From request to its place.", _WAITS_S)
        self.duration = self._histogram("video_lifetime_seconds", "From request to end of a video.", _VIDEO_S)
        self.video = self._histogram("video_length_seconds", "Seconds of a video that were made.", _VIDEO_S)
        self.recovered = self._counter("videos_recovered", "Videos that outlived a loss of their workers.", ("way",))
        for finish in Finish:
            self.finished.labels(finish)
        for rejection in Rejection:
            self.rejected.labels(rejection)
        for way in RECOVERY_WAYS:
            self.recovered.labels(way)


class StageFamilies(_Group):
    """What the stages of the chain do. ``stage`` is ``denoise0``, ``denoise1`` .. ; busy ones are ``decode`` and
    ``text`` too, whose passes have the same name."""

    def __init__(self, registry: CollectorRegistry, num_stages: int) -> None:
        super().__init__(registry)
        self.compute = self._histogram(
            "stage_compute_duration_seconds",
            "A forward in which the stage had a part; a fused one held denoise and cache passes of it.",
            _PASS_S,
            ("stage", "pass"),
        )
        self.busy = self._counter(
            "stage_busy_seconds",
            "Time that workers computed for a stage; a forward for several stages is shared by its passes.",
            ("stage", "rank", "pass"),
        )
        self.last_block = self._gauge("stage_last_block", "Block that a stage denoised last.", ("stage",))
        self.decode = self._histogram("vae_decode_duration_seconds", "Decoding of a block.", _PASS_S)
        self.encode = self._histogram("encode_duration_seconds", "Encoding of a block, muxing included.", _PASS_S)
        self.text = self._histogram("text_encode_duration_seconds", "Embedding of a prompt.", _PASS_S)
        self.text_hits = self._counter("text_cache_hits", "Prompts whose embedding was remembered.")
        self.text_misses = self._counter("text_cache_misses", "Prompts that had to be embedded.")
        for stage, kind in product(range(num_stages), PASSES):
            self.compute.labels(f"denoise{stage}", kind)
            self.last_block.labels(f"denoise{stage}")


class WorkerFamilies(_Group):
    """The worker processes, by ``rank``; ``edge`` is two ranks, such as ``0-1``. All children come with the plan."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        rank, edge = ("rank",), ("edge",)
        self.up = self._gauge("worker_up", "1 while the worker's group serves.", rank)
        self.heartbeat = self._gauge(
            "worker_last_heartbeat_timestamp_seconds", "When a serving worker was last heard of; absent if none.", rank
        )
        self.info = self._gauge("worker_info", "What a worker runs, always 1.", ("rank", "chain", "device", "stages"))
        self.idle = self._counter(
            "worker_idle_seconds",
            "Time without computing. input: latents of a known block were still to come; output: the encoder was full; "
            "none: there was no work.",
            ("rank", "cause"),
        )
        self.tickets_waiting = self._gauge("worker_tickets_waiting", "Tickets that are this worker's to pass.", rank)
        self.losses = self._counter("worker_losses", "Losses by the worker at fault.", ("rank", "reason"))
        self.pages_ratio = self._gauge("kv_cache_usage_ratio", "Part of a worker's pages that is taken, 0-1.", rank)
        self.start_progress = self._gauge(
            "worker_start_progress_ratio", "How far a phase of a worker's start is, 0-1.", ("rank", "phase")
        )
        self.memory = self._gauge(
            "worker_memory_bytes",
            "What a worker holds by item, as planned and as measured before its first block.",
            ("rank", "item", "source"),
        )
        self.pages = self._gauge("kv_cache_pages", "Pages of a worker's pool.", rank)
        self.sent_bytes = self._counter("stage_transfer_bytes", "Latents sent from worker to worker.", edge)
        self.transfer = self._histogram("stage_transfer_duration_seconds", "Sending of a block.", _TRANSFER_S, edge)
        self.receive_wait = self._histogram(
            "stage_receive_wait_duration_seconds", "Wait for a block, the work before it included.", _RECEIVE_S, edge
        )


class EngineFamilies(_Group):
    """The engine as a whole, and the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.state = self._gauge("engine_state", "1 for the state the engine is in, 0 for the others.", ("state",))
        self.restarts = self._counter("engine_restarts", "Worker groups lost and started again.", ("reason",))
        self.recovery = self._histogram(
            "engine_recovery_duration_seconds", "From the loss of a worker group to the next that serves.", _RECOVERY_S
        )
        self.load_duration = self._gauge(
            "model_load_duration_seconds", "Phases of the last start of the workers.", ("phase",)
        )
        self.errors = self._counter(
            "errors",
            "Failed videos (video) and refused or failed requests but probes (http), by code.",
            ("component", "kind"),
        )
        self.loop_lag = self._histogram("event_loop_lag_seconds", "How late a timer of the server fires.", _LAG_S)
        self.info = self._gauge(
            "engine_info",
            "What the engine runs, always 1; absent until it is ready.",
            ("model", "attention", "decoder", "encoder"),
        )
        self.build = self._gauge("build_info", "Versions, always 1.", ("version", "python", "torch"))
        for state in EngineState:
            self.state.labels(state)
        for reason in LossReason:
            self.restarts.labels(reason)
        for phase in START_PHASES:
            self.load_duration.labels(phase)
        for component, kinds in ERROR_KINDS.items():
            for kind in kinds:
                self.errors.labels(component, kind)


class HttpFamilies(_Group):
    """Exchanges, by route template; a path that is none of ours is ``other``, and so is a method no route has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.requests = self._counter("http_requests", "Answers begun.", ("method", "route", "code"))
        self.duration = self._histogram(
            "http_request_duration_seconds", "From request to the headers of the answer.", _HTTP_S, ("method", "route")
        )
        self.in_flight = self._gauge("http_requests_in_flight", "Requests being answered.", ("route",))


class Families:
    """All of the above on one registry. GPU readings are in ``server.metrics.gpu_families``."""

    def __init__(self, num_stages: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, of no use to us
        self.registry = CollectorRegistry(auto_describe=True)
        self.viewers = ViewerFamilies(self.registry)
        self.videos = VideoFamilies(self.registry)
        self.stages = StageFamilies(self.registry, num_stages)
        self.workers = WorkerFamilies(self.registry)
        self.engine = EngineFamilies(self.registry)
        self.http = HttpFamilies(self.registry)
