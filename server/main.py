"""The ``hiar-server`` command: reads settings, starts the engine, serves until told to stop.

Of several nodes, node 0 does so; the others lend it their devices and serve nothing. Knows no route. Everything that
keeps it from serving is one sentence on stderr and exit status 1.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from engine import Engine, EngineConfig, StartError
from server.app import create_app, metrics_route
from server.environment import unknown_settings
from server.errors import ApiError
from server.http.access_log import tell_refused
from server.http.keys import new_key, read_keys
from server.http.listener import Listener, address_of, listen, tell_full_in_one_line
from server.http.protocol import HideNoHttp, HttpConfig
from server.logs import configure_logging
from server.metrics import IGNORED
from server.metrics.endpoint import SideServer, metrics_app
from server.metrics.families import Families
from server.metrics.process import measuring
from server.metrics.recorder import Recorder
from server.model import model_of, roll_out_words
from server.plan import print_plan
from server.preflight import refuse_hopeless
from server.presets import print_presets
from server.ready_line import has_hiar, ready_line
from server.settings import SettingError, Settings, settings_from_process
from server.videos.live import HideAborts
from server.videos.store.opening import OpenStore, open_store

if TYPE_CHECKING:
    from server.traces.traces import Traces

_COLLECTORS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Serves until a signal; then goes on listening, and refusing, until the running videos have ended."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain_timeout_s = drain_timeout_s
        self._draining: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. Unlike the base class's, it is not raised again at the end: the exit status is 0."""
        self._loop.call_soon_threadsafe(self._signalled)

    def _signalled(self) -> None:
        if self._draining is None:
            _log.info("stopping: running videos end at their next block (send the signal again to stop at once)")
            self._draining = self._loop.create_task(self._drain())
        else:
            self._leave_now()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._drain_timeout_s):
                await self._engine.drain()
        except TimeoutError:
            _log.warning("videos still ran after %g s and are cut off", self._drain_timeout_s)
            self._leave_now()
        self.should_exit = True

    def _leave_now(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        self.force_exit = True
        self.should_exit = True


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server; exits the process."""
    try:
        settings = settings_from_process(sys.argv[1:] if arguments is None else arguments)
        if settings.list_presets:
            print_presets(sys.stdout)
            sys.exit(0)
        if settings.new_key is not None:
            sys.stdout.write(new_key(settings.new_key, settings.keys))
            sys.exit(0)
        _configure_logging(settings.log_level, settings.log_format)
        for words in unknown_settings(os.environ):
            _log.warning("%s", words)
        for name in IGNORED:
            _log.warning("%s is ignored: this server has its metrics in one process", name)
        config = engine_config(settings)
        if settings.plan:
            sys.exit(print_plan(settings, config, sys.stdout))
        refuse_hopeless(config)
        if config.nodes is not None and config.nodes.rank > 0:
            sys.exit(asyncio.run(_lend(config, settings.drain_timeout_s)))
        if settings.keys is not None:
            read_keys(settings.keys)  # what is wrong with them is told before anything is loaded
        is_open = settings.insecure or settings.keys is not None
        listeners = listen(settings.host, settings.port, is_open=is_open)
        metrics_listeners = _metrics_listeners(settings, is_open=is_open)
        traces = _traces(os.environ)
        kept = open_store(settings)
    except (SettingError, StartError) as error:
        sys.exit(f"hiar-server: {error}")
    sys.exit(asyncio.run(_serve(settings, config, listeners, metrics_listeners, traces, kept)))


async def _serve(
    settings: Settings,
    config: EngineConfig,
    listeners: list[Listener],
    metrics_listeners: list[Listener],
    traces: "Traces | None",
    kept: OpenStore | None,
) -> int:
    """Serve until told to stop. Returns the exit status."""
    tell_full_in_one_line(asyncio.get_running_loop())
    families = Families(config.manifest.rollout.num_stages)
    engine = Engine(config, observer=Recorder(families))
    app = create_app(settings, engine, families, traces, kept)

    def refused(error: ApiError) -> None:
        families.engine.errors.labels("http", error.row.code).inc()
        tell_refused(error)

    http = HttpConfig(app, settings.transport, refused, settings.trusted_proxies)
    server = DrainingServer(http, engine, settings.drain_timeout_s)
    _log.info("loading %s on %s", config.manifest.name, ", ".join(config.devices))
    _log.info(roll_out_words(config.manifest, settings))
    for listener in listeners:
        _log.info("listening on %s", address_of(listener))
    async with measuring(families, config.devices), _metrics_beside(settings, engine, families, metrics_listeners):
        if kept is not None:
            address = settings.advertise or address_of(listeners[0])
            await kept.store.start(engine, address if kept.is_shared else None)
        needs_key = settings.keys is not None
        starting = asyncio.create_task(_start(engine, server, address_of(listeners[0]), needs_key=needs_key))
        try:
            await server.serve(sockets=[*listeners])
        finally:
            starting.cancel()
            await engine.stop()
            if kept is not None:
                await kept.store.stop()
            if traces is not None:
                await traces.close()
        with suppress(asyncio.CancelledError):
            await starting
    return 1 if engine.fleet.failure else 0


@asynccontextmanager
async def _metrics_beside(
    settings: Settings, engine: Engine, families: Families, listeners: list[Listener]
) -> AsyncIterator[None]:
    """Serve `/metrics` on its own port, if it has one, while the body runs."""
    if not listeners:
        yield
        return
    app = metrics_app(metrics_route(settings, engine, families))
    server = SideServer(HttpConfig(app, settings.transport))
    for listener in listeners:
        _log.info("metrics on %s/metrics", address_of(listener))
    serving = asyncio.create_task(server.serve(sockets=[*listeners]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _start(engine: Engine, server: uvicorn.Server, address: str, *, needs_key: bool) -> None:
    began_s, ready = time.monotonic(), False
    try:
        await engine.start()
        await engine.wait_ready()
        ready = True
    except StartError as error:
        _log.error("cannot start: %s", error)
        return
    finally:
        server.should_exit |= not ready
    took_s = time.monotonic() - began_s
    _log.info("%s", ready_line(address, took_s, needs_key=needs_key, has_command=has_hiar()))


async def _lend(config: EngineConfig, drain_timeout_s: float) -> int:
    """Lend this node's devices to node 0 until that stops or a signal comes. Returns the exit status.

    A whole group is told to stop at once, so SIGTERM leaves node 0 the time it has to end its running videos.
    Raises ``StartError``.
    """
    from engine import run_agent  # noqa: PLC0415 - node 0, and a server on one host, never need it

    nodes = config.nodes
    assert nodes is not None
    loop, leave = asyncio.get_running_loop(), asyncio.Event()
    lending = loop.create_task(run_agent(config, leave))

    def signalled(number: signal.Signals) -> None:
        if leave.is_set() or number is signal.SIGINT:
            lending.cancel()
        else:
            _log.info("stopping with node 0 (send the signal again to stop at once)")
            leave.set()
            loop.call_later(drain_timeout_s, lending.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
    master = f"{nodes.master_addr}:{nodes.control_port}"
    _log.info("node %d of %d: lends %s to %s", nodes.rank, nodes.num_nodes, ",".join(config.devices), master)
    with suppress(asyncio.CancelledError):
        await lending
    return 0


def engine_config(settings: Settings) -> EngineConfig:
    """What the engine is told, with the model that the settings name. Raises ``StartError`` or ``SettingError``."""
    return EngineConfig(manifest=model_of(settings), **vars(settings.engine))


def _metrics_listeners(settings: Settings, *, is_open: bool) -> list[Listener]:
    return [] if settings.metrics_port is None else listen(settings.host, settings.metrics_port, is_open=is_open)


def _traces(environment: Mapping[str, str]) -> "Traces | None":
    """What requests and videos are traced with, where the environment names a collector. Raises ``SettingError``."""
    wanted = [name for name in _COLLECTORS if environment.get(name)]
    if not wanted:
        return None
    try:
        from server.traces.traces import Traces  # noqa: PLC0415 - an extra, and nobody else's to import
    except ImportError as error:
        raise SettingError(f"{wanted[0]} needs packages: pip install 'hiar-server[otel]' ({error})") from None
    return Traces()


def _configure_logging(level: str, form: str) -> None:
    configure_logging(level, form)
    for noise in (HideAborts(), HideNoHttp()):
        logging.getLogger("uvicorn.error").addFilter(noise)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a client's form is no event of the server
    if level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
