"""The file of keys: what a line is, when it is in force, and how one is added."""

import hmac
import re
import stat
from pathlib import Path

import pytest

from server.http.keys import LOOK_S, KeyLimits, KeyRing, new_key, read_keys
from server.settings import SettingError, read_settings
from tests.server.keyed_server import ALICE, BOB, SLOW, line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("alice\n", ("line 1", "NAME:SHA256:LIMITS")),
        ("a b:00:\n", ("line 1", "NAME:SHA256:LIMITS")),
        (f"# x\nalice:{'0' * 63}:\n", ("line 2", "alice", "64 hex digits")),
        (line("alice", ALICE, "speed=3"), ("line 1", "'speed'", "requests, videos, stored, priority")),
        (line("alice", ALICE, "videos=0"), ("videos is '0'", "1..100000")),
        (line("alice", ALICE, "priority=10"), ("priority is '10'", "0..9")),
        (line("alice", ALICE, "videos=1K"), ("videos is '1K'", "1..100000")),
        (line("alice", ALICE, "stored=0"), ("stored is '0'", "1..2^60 bytes", "20G")),
        (line("alice", ALICE, "stored=2T"), ("stored is '2T'",)),
        (line("alice", ALICE, "videos=1,videos=2"), ("'videos'", "twice")),
        (line("alice", ALICE) + line("bob", ALICE), ("line 2", "digest already")),
        ("\u00e9:0:\n", ("ASCII",)),
    ],
)
def test_a_file_that_is_wrong_is_told_by_its_line(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        KeyRing(path)
    assert all(part in str(caught.value) for part in (str(path), *parts))
    assert ALICE not in str(caught.value)


def test_a_secret_is_compared_with_every_key_whichever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, compared, compare = tmp_path / "keys", list[bytes](), hmac.compare_digest
    path.write_text(line("alice", ALICE) + line("bob", BOB) + line("slow", SLOW))
    ring = KeyRing(path)

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for secret in (ALICE, SLOW, "", ALICE[:-1], "x" * 10_000):
        ring.find(secret.encode())
    assert len(compared) == 5 * 3, "the time that an answer takes tells nothing of a key"


def test_a_line_is_name_digest_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(
        f"#c\n\n{line('a.b-c_1', ALICE).rstrip(':')}{line('bob', BOB, ' requests=60, videos=2,stored=20G,priority=9')}"
    )
    first, second = read_keys(path)
    assert (first.name, first.limits) == ("a.b-c_1", KeyLimits())
    assert second.limits == KeyLimits(requests=60, videos=2, stored=20 * 1024**3, priority=9)


def test_a_changed_file_is_in_force_and_a_broken_or_missing_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, now = tmp_path / "keys", [0.0]
    path.write_text(line("alice", ALICE))
    ring = KeyRing(path, clock=lambda: now[0])

    def found(secret: str) -> str | None:
        now[0] += LOOK_S
        key = ring.find(secret.encode())
        return None if key is None else key.name

    assert (found(ALICE), found(BOB)) == ("alice", None)
    path.write_text(line("bob", BOB))
    assert (found(ALICE), found(BOB)) == (None, "bob")
    path.write_text("broken\n")
    assert found(BOB) == "bob" and caplog.text.count("stay in force") == 1
    path.unlink()
    assert found(BOB) == "bob" and found(BOB) == "bob" and caplog.text.count("stay in force") == 2
    replaced = tmp_path / "new"
    replaced.write_text(line("alice", ALICE) + line("alice", SLOW))
    replaced.rename(path)
    assert (found(ALICE), found(SLOW), found(BOB)) == ("alice", "alice", None), "a secret and the one that follows it"


def test_a_new_key_is_told_once_and_kept_as_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    first = new_key("alice", path).strip()
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    second = new_key("bob", path).strip()
    ring = KeyRing(path)
    for name, secret in (("alice", first), ("bob", second)):
        key = ring.find(secret.encode())
        assert key is not None and key.name == name and secret not in path.read_text()
        assert re.fullmatch(r"hiar_[\w-]{43}", secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret, text = new_key("carol", None).splitlines()
    assert text == line("carol", secret).strip()
    path.write_text("broken")
    with pytest.raises(SettingError, match="line 1"):
        new_key("dave", path)
    with pytest.raises(SettingError, match="cannot be written"):
        new_key("dave", tmp_path / "none" / "keys")


def test_settings_of_access(tmp_path: Path) -> None:
    flags = f"--keys {tmp_path}/k --insecure --allowed-hosts a.example,*.b --cors-origins https://c.example,http://d:1"
    settings = read_settings([*flags.split(), "--max-per-client", "2", "--trusted-proxies", "10.0.0.0/8,::1"], {})
    assert (settings.keys, settings.insecure, settings.max_per_client) == (tmp_path / "k", True, 2)
    assert settings.allowed_hosts == ("a.example", "*.b")
    assert settings.cors_origins == ("https://c.example", "http://d:1")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert read_settings([], {"HIAR_INSECURE": "false", "HIAR_ALLOWED_HOSTS": ""}).insecure is False
