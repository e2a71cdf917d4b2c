"""``hiar-server`` on workers that need no process: first seconds a block or a word of ``behaviour``, then its flags."""

import sys

import server.main
from engine import EngineConfig, Manifest, Observer, WeightsError, WorkerLost
from server.info.routes import InfoRoutes
from server.settings import Settings
from tests.instant import MANIFEST, Behaviour, InstantEngine


def behaviour(pace: str) -> Behaviour:
    match pace:
        case "broken":
            return Behaviour(start_failure=WeightsError("model.safetensors is truncated"))
        case "failing":
            return Behaviour(fail_at=1, failure=WorkerLost("a worker died"))
        case "painted":
            from tests.painted_mp4 import PaintedMedia  # noqa: PLC0415 - imports torch, which takes two seconds

            return Behaviour(block_s=0.05, media=PaintedMedia)
        case "buggy":
            InfoRoutes.capabilities = _bug  # type: ignore[method-assign, assignment]
            return Behaviour()
        case seconds:
            return Behaviour(block_s=float(seconds))


async def _bug(self: InfoRoutes) -> None:
    raise KeyError("a bug")


def main() -> None:
    wanted = behaviour(sys.argv[1])

    def engine(config: EngineConfig, observer: Observer) -> InstantEngine:
        return InstantEngine(config, wanted, observer)

    def model_of(settings: Settings) -> Manifest:
        return MANIFEST

    server.main.Engine = engine  # type: ignore[assignment, misc]
    server.main.model_of = model_of  # type: ignore[assignment]
    server.main.refuse_hopeless = lambda config: None  # its model has no files
    server.main.main(sys.argv[2:])


if __name__ == "__main__":
    main()
