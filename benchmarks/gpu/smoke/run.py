"""All steps in order, and what each needs of the ones before it."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.gpu.smoke.apart import apart
from benchmarks.gpu.smoke.check import Check, Clock, attempt, not_run
from benchmarks.gpu.smoke.memory import used_on, uuids
from benchmarks.gpu.smoke.model import subject_of
from benchmarks.gpu.smoke.oracle import Question, against_oracle, compared
from benchmarks.gpu.smoke.serving import Serving
from benchmarks.gpu.smoke.socket import over_a_socket
from benchmarks.gpu.smoke.speed import machine, time_decoders, time_passes
from benchmarks.true_shapes.folder import apparent_bytes, make_folder, shown
from engine import read_manifest

MINUTES = 10.0
STOP_S = 15.0
"""What an engine gets to end, however little time is left."""
NEEDS_S = {
    "machine": 20.0,
    "model": 40.0,
    "start": 120.0,
    "video of latents": 20.0,
    "video of fragments": 20.0,
    "memory": 10.0,
    "recovery": 120.0,
    "stop": STOP_S,
    "oracle": 60.0,
    "passes": 60.0,
    "decoders": 30.0,
    "socket": 60.0,
}
"""What steps need of ``MINUTES`` on a GPU as fast as an H100, estimated; with fewer minutes each gets less. In the
order in which they run: the last is left out when starts take long, since a server's start takes that time again."""
ROOT = Path(__file__).parents[3]
Step = Callable[[float], Check]
Result = TypeVar("Result")


@dataclass(kw_only=True)
class Smoke:
    """One run."""

    devices: tuple[str, ...]
    size: str
    model: Path | None
    """None: a folder with random weights is made."""
    clock: Clock
    scratch: Path
    machine: list[dict[str, str]] = field(default_factory=list)
    """Facts of each device, once they are known."""
    ready_s: float = 0.0
    """What the start of the engine took, once it has started."""
    question: Question | None = None
    """What the oracle is to be asked, once there are latents."""

    @property
    def folder(self) -> Path:
        """Of the model."""
        return self.model or self.scratch / "model"

    def run(self) -> Iterator[Check]:
        """Every step; its check as soon as it is made."""
        names = {str(self.scratch): "(temporary folder)", str(ROOT): "."}
        for check in self._steps():
            yield check.with_names(names)

    def _steps(self) -> Iterator[Check]:
        looked = self._attempt("machine", self._look_at_machine)
        yield looked
        if not looked.passed:
            yield from (not_run(name, "the devices could not be opened") for name in _between("model", None))
            return
        model = self._attempt("model", self._make_model)
        yield model
        if model.passed:
            yield from self._serve()
            yield self._ask_oracle()
        else:
            yield from (not_run(name, "there is no model") for name in _between("start", "passes"))
        yield self._attempt("passes", partial(self._time, time_passes))
        yield self._attempt("decoders", partial(self._time, time_decoders))
        if model.passed:
            yield self._attempt("socket", self._use_socket)
        else:
            yield not_run("socket", "there is no model")

    def _look_at_machine(self, limit_s: float) -> Check:
        self.machine = apart(machine, self.devices, limit_s=limit_s)
        names = [facts["device"] for facts in self.machine]
        versions = ", ".join(f"{what} {self.machine[0][what]}" for what in ("python", "torch", "triton"))
        return Check(name="machine", result=f"{', '.join(names)}; {versions}", passed=True)

    def _make_model(self, limit_s: float) -> Check:
        if self.model is None:
            apart(_make_random, self.folder, self.size, limit_s=limit_s)
        manifest = read_manifest(self.folder)
        num_bytes = apparent_bytes(self.folder)
        origin = "given" if self.model else "made, with random weights; of the text encoder zeros"
        return Check(
            name="model",
            result=f"{manifest.name}, {shown(num_bytes)}, {origin}",
            passed=True,
            numbers={"bytes": num_bytes},
        )

    def _serve(self) -> Iterator[Check]:
        """The steps with one engine, which is gone afterwards, and with it what it held of devices."""
        begun: list[Serving] = []

        def start(loop: asyncio.Runner, limit_s: float) -> Check:
            begun.append(Serving(subject_of(self.folder, self.devices, limit_s, self.scratch)))
            return _within(loop, begun[0].start(), limit_s)

        with asyncio.Runner() as loop:
            try:
                started = self._attempt("start", partial(start, loop))
                yield started
                if started.passed:
                    self.ready_s = started.numbers["ready_s"]
                    yield from self._use(loop, begun[0])
                else:
                    without = _between("video of latents", "stop")
                    yield from (not_run(name, "the engine did not start") for name in without)
                if begun:
                    yield attempt("stop", STOP_S, lambda limit_s: _within(loop, begun.pop().stop(), limit_s))
                else:
                    yield not_run("stop", "there is no engine")
            finally:
                for serving in begun:  # the run is being left in the middle
                    _within(loop, serving.stop(), STOP_S)

    def _use(self, loop: asyncio.Runner, serving: Serving) -> Iterator[Check]:
        def step(make: Callable[[], Coroutine[None, None, Check]], limit_s: float) -> Check:
            return _within(loop, make(), limit_s)

        yield self._attempt("video of latents", partial(step, serving.make_latents))
        self.question = self._question_to(serving)
        yield self._attempt("video of fragments", partial(step, serving.make_fragments))
        yield self._attempt("memory", lambda limit_s: serving.memory(self._used_bytes(limit_s)))
        yield self._attempt("recovery", lambda limit_s: _within(loop, serving.lose_a_worker(limit_s), limit_s))

    def _used_bytes(self, limit_s: float) -> dict[str, int]:
        """What is in use on each GPU; of CPUs nothing."""
        if self.devices[0] == "cpu":
            return {}
        return used_on(apart(uuids, self.devices, limit_s=limit_s))

    def _question_to(self, serving: Serving) -> Question | None:
        if serving.latents is None or not serving.latents.blocks:
            return None
        return Question(
            config=serving.subject.config,
            dtype_name=serving.dtype_name,
            text_device="cpu" if serving.text_on_host else self.devices[0],
            blocks=compared(serving.latents.blocks),
        )

    def _ask_oracle(self) -> Check:
        if self.question is None:
            return not_run("oracle", "there are no latents to compare")
        return self._attempt("oracle", lambda limit_s: apart(against_oracle, self.question, limit_s=limit_s))

    def _use_socket(self, limit_s: float) -> Check:
        if limit_s < self.ready_s:
            why = f"{limit_s:.0f} s are left, and the engine alone took {self.ready_s:.0f} s to start"
            return not_run("socket", f"{why}; --minutes gives more")
        return over_a_socket(self.folder, self.devices, read_manifest(self.folder), limit_s)

    def _time(self, timed: Callable[[str, str, float], Check], limit_s: float) -> Check:
        return apart(timed, self.devices[0], self.size, limit_s, limit_s=limit_s)

    def _attempt(self, name: str, step: Step) -> Check:
        limit_s = self.clock.limit_s(name)
        print(f"{name}: {limit_s:.0f} s at most", flush=True)
        return attempt(name, limit_s, step)


def clock_of(minutes: float) -> Clock:
    """Time for all steps, which starts to run: each step needs its part of it."""
    return Clock(60 * minutes, {name: need_s * minutes / MINUTES for name, need_s in NEEDS_S.items()})


def _between(first: str, end: str | None) -> list[str]:
    """Names of steps, from ``first`` on and without ``end``; None: to the last."""
    names = list(NEEDS_S)
    return names[names.index(first) : names.index(end) if end else None]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the model, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hiar-smoke-") as name:
        yield Path(name)


def _make_random(folder: Path, size: str) -> None:
    make_folder(folder, size=size, random=True, say=lambda line: print(f"  {line}", flush=True))


def _within(loop: asyncio.Runner, work: Coroutine[None, None, Result], limit_s: float) -> Result:
    """Run on the engine's loop. Raises ``TimeoutError`` when it takes too long."""

    async def limited() -> Result:
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            raise TimeoutError(f"it was not done after {limit_s:.0f} s") from None

    return loop.run(limited())
