"""Makes hostile requests: a good one of the served document, then some changes. The same seed gives the same cases."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CHANGES_MAX = 3
_NAMES = (b"Host", b"Content-Length", b"Transfer-Encoding", b"Range", b"Origin", b"Expect", b"Upgrade", b"Cookie")
_VALUES = (
    b"",
    b"0",
    b"-1",
    b"chunked",
    b"gzip, chunked",
    b"bytes=0-0,5-",
    b"null",
    b"100-continue",
    b"h2c",
    b"\xff\xfe",
)
_WORDS = ("..", "%00", "%2e%2e%2f", "\u202e", "a" * 3000, "%", "'\"<>", "-1", "18446744073709551616", "nan")
_JSON: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e308,
    2**70,
    "",
    "\x00",
    "\ud800",
    [],
    {},
    [[]],
    {"a": {"b": []}},
    "x" * 5000,
    0.1,
)


@dataclass
class Request:
    """One request before it is bytes."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    tail: list[Callable[[bytes], bytes]] = field(default_factory=list)
    """What is done to the bytes at last."""

    def raw(self) -> bytes:
        """As it is sent."""
        lines = [f"{self.method} {self.path} ".encode("utf-8", "surrogatepass") + self.version]
        lines += [name + b": " + value for name, value in self.headers]
        data = b"\r\n".join(lines) + b"\r\n\r\n" + self.body
        for change in self.tail:
            data = change(data)
        return data


def cases(
    document: dict[str, Any], host: str, ids: list[str], num_cases: int, seed: int, key: str | None = None
) -> list[bytes]:
    """``ids``: of videos that there are; only the last is deleted. ``host``: of the Host header. ``key``: the right
    one, which half of the requests have; the others have none or a wrong one.
    """
    dice = random.Random(seed)
    operations = [(path, method, one) for path, rows in document["paths"].items() for method, one in rows.items()]
    made = []
    for number in range(num_cases):
        request = _good(dice, host, ids, *operations[number % len(operations)])
        if key is not None:
            request.headers += _authorization(dice, key)
        for _ in range(dice.randint(0, CHANGES_MAX)):
            dice.choice(CHANGES)(dice, request)
        made.append(request.raw())
    return made


def _good(dice: random.Random, host: str, ids: list[str], path: str, method: str, operation: dict[str, Any]) -> Request:
    known = ids[-1:] if method == "delete" else ids
    names = {"{video_id}": dice.choice([*known, "video_unknown"]), "{n}": str(dice.randint(0, 9)), "{name}": "tiny"}
    for name, value in names.items():
        path = path.replace(name, value)
    query = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    if query and dice.random() < 0.7:
        path += f"?{dice.choice(query)}={dice.choice(('0', '1', 'live', 'asc', 'thumbnail', '-1', 'x'))}"
    headers = [(b"Host", host.encode()), (b"Connection", dice.choice((b"close", b"keep-alive")))]
    body = b""
    if "requestBody" in operation:
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        body = json.dumps({**dice.choice(list(examples.values()))["value"]}).encode()
        headers += [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())]
    return Request(method.upper(), path, headers, body)


def _authorization(dice: random.Random, key: str) -> list[tuple[bytes, bytes]]:
    right = b"Bearer " + key.encode()
    if dice.random() < 0.5:
        return [(b"Authorization", right)]
    wrong = (b"", b"Bearer", b"Basic " + right[7:], right[:-1], right * 900, b"Bearer \xff\x00", b"Bearer " + right)
    return [(b"Authorization", value) for value in dice.sample(wrong, dice.randint(0, 2))]


def _other_method(dice: random.Random, request: Request) -> None:
    request.method = dice.choice(
        ("GET", "HEAD", "PUT", "OPTIONS", "TRACE", "PATCH", "get", "BREW", "CONNECT", "DELETE")
    )


def _other_version(dice: random.Random, request: Request) -> None:
    request.version = dice.choice((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1", b"http/1.1", b"", b"ICY"))


def _other_path(dice: random.Random, request: Request) -> None:
    word = dice.choice(_WORDS)
    request.path = dice.choice((f"{request.path}/{word}", f"{request.path}?{word}={word}", f"/{word}", f"//{word}"))


def _other_header(dice: random.Random, request: Request) -> None:
    request.headers.append((dice.choice(_NAMES), dice.choice(_VALUES)))


def _broken_header(dice: random.Random, request: Request) -> None:
    request.headers.append(
        (dice.choice((b"", b"a b", b"\x00", b"x" * 9000, b" X")), dice.choice((b"\x00", b"\r\n x", b"\t")))
    )


def _no_header(dice: random.Random, request: Request) -> None:
    request.headers.pop(dice.randrange(len(request.headers))) if request.headers else None


def _many_headers(dice: random.Random, request: Request) -> None:
    request.headers += [(f"X-{n}".encode(), b"y" * dice.randint(0, 90)) for n in range(dice.choice((50, 900)))]


def _long_path(dice: random.Random, request: Request) -> None:
    request.path += "?" + "q" * dice.choice((8000, 9000, 70_000))


def _other_field(dice: random.Random, request: Request) -> None:
    try:
        fields = json.loads(request.body)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        fields[dice.choice(("prompt", "seconds", "seed", "size", "fps", "pace", "priority", "x"))] = dice.choice(_JSON)
        _set_body(request, json.dumps(fields).encode())


def _other_body(dice: random.Random, request: Request) -> None:
    _set_body(request, dice.choice((b"{", b"[" * 9000, b"\xff", b"{}" * 9, b"null", b'{"a":1,"a":2}', b"0" * 70_000)))


def _chunked(dice: random.Random, request: Request) -> None:
    request.headers = [one for one in request.headers if one[0] != b"Content-Length"]
    request.headers.append((b"Transfer-Encoding", b"chunked"))
    size = dice.choice((b"%x" % len(request.body), b"-1", b"zz", b"ffffffffffffffff", b"1;" + b"e" * 9000))
    request.body = size + b"\r\n" + request.body + b"\r\n0\r\n\r\n"


def _set_body(request: Request, body: bytes) -> None:
    request.body = body
    request.headers = [one for one in request.headers if one[0] != b"Content-Length"]
    request.headers.append((b"Content-Length", str(len(body)).encode()))


def _cut(dice: random.Random, request: Request) -> None:
    share = dice.random()
    request.tail.append(lambda data: data[: int(len(data) * share)])


def _other_bytes(dice: random.Random, request: Request) -> None:
    changes = [(dice.random(), dice.randrange(256)) for _ in range(dice.randint(1, 5))]

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for place, value in changes:
            if changed:
                changed[int(place * len(changed))] = value
        return bytes(changed)

    request.tail.append(change)


def _twice(dice: random.Random, request: Request) -> None:
    request.tail.append(lambda data: data * 2)


def _bare_lines(dice: random.Random, request: Request) -> None:
    request.tail.append(lambda data: data.replace(b"\r\n", b"\n"))


CHANGES: tuple[Callable[[random.Random, Request], None], ...] = (
    _other_method,
    _other_version,
    _other_path,
    _other_header,
    _broken_header,
    _no_header,
    _many_headers,
    _long_path,
    _other_field,
    _other_field,
    _other_body,
    _chunked,
    _cut,
    _other_bytes,
    _other_bytes,
    _twice,
    _bare_lines,
)
"""What can be done to a request."""
