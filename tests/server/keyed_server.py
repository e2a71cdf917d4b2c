"""A server that asks for keys, with three of them."""

import hashlib
from typing import Any

import httpx

from tests.server.live_server import LiveServer

ALICE, BOB, SLOW = "hiar_alice", "hiar_bob", "hiar_slow"
"""Secrets."""
VIDEO = {"prompt": "x", "seconds": 3600}


def line(name: str, secret: str, limits: str = "") -> str:
    return f"{name}:{hashlib.sha256(secret.encode()).hexdigest()}:{limits}\n"


def bearer(secret: str) -> dict[str, str]:
    """The header of a key; none for none."""
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def create(live: LiveServer, secret: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/videos", json={**VIDEO, **fields}, headers=bearer(secret))
