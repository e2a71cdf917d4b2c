"""``hiar-server`` with real workers whose passes are sleeps: ``PASS_S [kind:stage:block:seed ...] -- flags``."""

import sys
from dataclasses import replace

from engine import Engine, EngineConfig, Observer
from engine.engine_config import Fault, FaultKind, Rehearsal
from engine.fleet import supervisor


def fault(text: str) -> Fault:
    kind, stage, block, seed = text.split(":")
    return Fault(kind=FaultKind(kind), stage=int(stage), block=int(block), seed=int(seed))


def main() -> None:
    import server.main  # noqa: PLC0415 - every worker imports this file, and none has a use for the rest of a server

    split = sys.argv.index("--")
    pass_s, *faults = sys.argv[1:split]
    rehearsal = Rehearsal(pass_s=float(pass_s), decode_s=float(pass_s), faults=tuple(map(fault, faults)))

    def engine(config: EngineConfig, observer: Observer) -> Engine:
        return Engine(replace(config, rehearsal=rehearsal, poison_pages=True), observer=observer)

    supervisor.PAUSES_S = tuple(
        pause_s / 10 for pause_s in supervisor.PAUSES_S
    )  # nothing here is out of order for long
    read_settings = server.main.settings_from_process
    server.main.settings_from_process = lambda arguments: replace(read_settings(arguments), metrics_keep_s=0.0)
    server.main.Engine = engine  # type: ignore[assignment, misc]
    server.main.main(sys.argv[split + 1 :])


if __name__ == "__main__":
    main()
