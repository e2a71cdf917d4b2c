"""A live server that does not mind a slow machine: what these tests look at is not how fast a client is."""

from contextlib import AbstractContextManager
from dataclasses import replace

from tests.instant import Behaviour
from tests.server import live_server
from tests.server.live_server import QUICK, LiveServer

PATIENT = replace(QUICK, header_timeout_s=20.0, body_timeout_s=20.0, send_timeout_s=20.0, first_fragment_timeout_s=60.0)


def serving(behaviour: Behaviour | None = None, **settings: object) -> AbstractContextManager[LiveServer]:
    return live_server.serving(behaviour, PATIENT, **settings)
