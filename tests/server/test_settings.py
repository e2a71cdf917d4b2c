"""Settings come from flags, then environment, then defaults; a bad one says what is wrong with it."""

from pathlib import Path

import pytest

from server.settings import SettingError, Settings, read_settings


def test_defaults() -> None:
    settings = read_settings([], {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.devices) == ("127.0.0.1", 8000, ("cpu",))
    assert settings.model.parts[-2:] == ("models", "tiny")


def test_every_flag() -> None:
    flags = "--model m --devices cuda:0,cuda:11 --host ::1 --port 0 --max-sessions 3 --max-queue 0 --max-seconds 1.5"
    settings = read_settings([*flags.split(), "--drain-timeout", "5", "--log-level", "DEBUG"], {})
    assert settings == Settings(
        model=Path("m"),
        devices=("cuda:0", "cuda:11"),
        host="::1",
        port=0,
        max_sessions=3,
        max_queue=0,
        max_seconds=1.5,
        drain_timeout_s=5.0,
        log_level="debug",
    )


def test_the_environment_is_read_and_a_flag_wins() -> None:
    environment = {"HIAR_PORT": "9000", "HIAR_MAX_QUEUE": "1", "HIAR_DRAIN_TIMEOUT": "2", "PORT": "1"}
    settings = read_settings(["--port", "9001"], environment)
    assert (settings.port, settings.max_queue, settings.drain_timeout_s) == (9001, 1, 2.0)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("PORT", "eighty", "0..65535"),
        ("PORT", "65536", "0..65535"),
        ("PORT", "", "0..65535"),
        ("DEVICES", "gpu", "cuda:0,cuda:1"),
        ("DEVICES", "cuda:0,", "cuda:0,cuda:1"),
        ("MAX_SESSIONS", "0", "1..1024"),
        ("MAX_SECONDS", "nan", "above 0"),
        ("MAX_SECONDS", "inf", "above 0"),
        ("LOG_LEVEL", "loud", "debug or info"),
        ("HOST", " ", "a host name"),
        ("MODEL", "", "a folder"),
    ],
)
def test_a_bad_value_names_key_value_and_expectation(key: str, value: str, expected: str) -> None:
    flag = "--" + key.lower().replace("_", "-")
    for arguments, environment, name in ([], {f"HIAR_{key}": value}, f"HIAR_{key}"), ([flag, value], {}, flag):
        with pytest.raises(SettingError) as caught:
            read_settings(arguments, environment)
        assert str(caught.value).startswith(f"{name} is {value!r}; expected ")
        assert expected in str(caught.value)


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--prot", "1"], {})
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_help_shows_defaults_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--help"], {})
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in shown
    assert "default: 8000" in shown
    assert "default: models/tiny" in shown
