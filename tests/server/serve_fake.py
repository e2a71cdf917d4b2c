"""``hiar-server`` on the fake engine, for tests of the process: first seconds a block or ``broken``/``failing``."""

import sys

import server.main
from engine import WeightsError, WorkerLost
from tests.server.fake_engine import Behaviour, FakeEngine, manifest


def main() -> None:
    pace = sys.argv[1]
    engine = FakeEngine()
    if pace == "broken":
        engine.failure = WeightsError("model.safetensors is truncated")
    elif pace == "failing":
        engine.behaviour = Behaviour(fail_at=1, failure=WorkerLost("a worker died"))
    else:
        engine.behaviour = Behaviour(block_s=float(pace))
    server.main.Engine = lambda config, observer: engine  # type: ignore[assignment, misc]
    server.main.read_manifest = lambda path, decoder: manifest()
    server.main.main(sys.argv[2:])


if __name__ == "__main__":
    main()
