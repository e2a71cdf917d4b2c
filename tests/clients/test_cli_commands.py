"""What the commands of ``hiar`` say, in this process, against the real HTTP server on workers that need no process."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hiar_client.cli.command import parser, run
from hiar_client.cli.output import name_of
from tests.clients.patient import serving
from tests.instant import Behaviour
from tests.painted_mp4 import PaintedMedia
from tests.server.keyed_server import ALICE, line
from tests.server.live_server import LiveServer, eventually

Hiar = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving(Behaviour(media=PaintedMedia)) as server:
        yield server


@pytest.fixture
def hiar(live: LiveServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Hiar:
    """Runs a command in an empty folder. Returns status, stdout, stderr."""
    monkeypatch.setenv("HIAR_URL", live.url)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("HIAR_KEY", raising=False)
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        status = run(words)
        said = capfd.readouterr()
        return status, said.out, said.err

    return command


@pytest.fixture
def made(hiar: Hiar) -> str:
    """The id of a video of two seconds."""
    video = hiar("videos", "create", "a red star", "--seconds", "2", "--seed", "7")[1].strip()
    assert hiar("videos", "wait", video)[0] == 0
    return video


@pytest.fixture
def running(hiar: Hiar, live: LiveServer) -> Iterator[str]:
    """The id of one that goes on."""
    video = hiar("videos", "create", "a red star", "--seconds", "3600", "--pace", "realtime")[1].strip()
    yield video
    run(["videos", "delete", video])
    eventually(lambda: live.engine.load.running == 0, within_s=30)


def test_status_and_models(hiar: Hiar) -> None:
    status, models = hiar("status"), hiar("models")
    assert (status[0], models[0]) == (0, 0)
    assert "ready, model instant" in status[1] and "worker 0 on cpu: text denoise[0]" in status[1]
    assert "instant: 416x240, 832x480 at 16 frames/s" in models[1]
    assert json.loads(hiar("status", "--json")[1])["model"] == "instant"
    assert json.loads(hiar("models", "--json")[1])[0]["id"] == "instant"


def test_videos_are_listed(hiar: Hiar, made: str) -> None:
    status, table, _ = hiar("videos")
    head, newest, *_ = table.splitlines()
    assert status == 0 and head.split() == ["ID", "STATUS", "SECONDS", "SIZE", "PROMPT"]
    assert newest.split() == [made, "completed", "2.0/2", "416x240", "a", "red", "star"]
    assert [video["id"] for video in json.loads(hiar("videos", "list", "--limit", "1", "--json")[1])] == [made]
    assert json.loads(hiar("videos", "get", made)[1])["seed"] == 7


def test_a_long_prompt_does_not_break_the_table(hiar: Hiar) -> None:
    hiar("videos", "create", "a red star\n" * 30, "--seconds", "1")
    assert all(len(line) <= 100 for line in hiar("videos")[1].splitlines())


def test_a_video_is_downloaded(hiar: Hiar, made: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert hiar("videos", "download", made)[0] == 0
    assert hiar("videos", "download", made, "-y")[2].startswith("a-red-star.mp4: ")
    assert hiar("videos", "download", made, "--variant", "thumbnail", "-o", "star.webp")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a-red-star.mp4", "a-red-star-2.mp4", "star.webp"}
    assert (tmp_path / "star.webp").read_bytes()[8:12] == b"WEBP"


def test_a_video_is_made_again_and_made_longer(hiar: Hiar, made: str) -> None:
    again = hiar("videos", "remix", made, "a blue star")[1].strip()
    longer = hiar("videos", "extend", made, "2", "--prompt", "a blue star")[1].strip()
    told = [json.loads(hiar("videos", "wait", video, "--json")[1]) for video in (again, longer)]
    assert [video["status"] for video in told] == ["completed", "completed"]
    assert (told[0]["remixed_from_video_id"], told[0]["seed"]) == (made, 7)
    assert told[1]["extended_from_video_id"] == made


def test_a_running_video_is_steered(hiar: Hiar, running: str) -> None:
    status, said, _ = hiar("prompt", running, "a blue square")
    assert status == 0 and said.startswith("from block ")
    assert hiar("videos", "pause", running)[0] == 0
    assert " paused " in hiar("videos")[1]
    assert hiar("videos", "resume", running)[0] == 0
    assert hiar("videos", "cancel", running)[0] == 0
    assert hiar("videos", "wait", running)[0] == 1
    assert json.loads(hiar("videos", "get", running)[1])["status"] == "cancelled"
    assert hiar("videos", "delete", running)[0] == 0
    status, _, said = hiar("videos", "get", running)
    assert status == 1 and said.startswith(f"hiar: there is no video {running}")


def test_a_picture_is_sent(hiar: Hiar, live: LiveServer, made: str, tmp_path: Path) -> None:
    hiar("videos", "download", made, "--variant", "thumbnail", "-o", "star.webp")
    status, _, said = hiar("generate", "a red star", "--image", "star.webp", "--seconds", "1", "-q", "-o", "x.mp4")
    assert (status, said) == (0, "") and live.engine.workers.pictures


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "red", "star"), "there is no command 'a'; to make a video: hiar generate \"a red star\""),
        (("genrate", "x"), "there is no command 'genrate'; did you mean 'generate'?"),
        (("generate", "a", "red", "star"), 'put the prompt in quotes: "a red star"'),
        (("generate", "a", "red", "--seconds", "1", "star"), 'put the prompt in quotes: "a red star"'),
        (("prompt", "video_x", "a", "star"), 'put the prompt in quotes: "a star"'),
        (("generate", "--seconds", "1"), "the prompt is missing; say what the video is to show, in quotes"),
        (("generate", "@none.txt"), "cannot read none.txt: No such file or directory"),
        (("generate", "x", "-o", "none/x.mp4"), "the folder of none/x.mp4 does not exist"),
        (("generate", "x", "--at", "soon", "y"), "--at: 'soon' is not a number of seconds above 0"),
        (("bench", "--mix", "reader=1,writer=2"), "--mix: 'writer' is no behaviour; there are reader, slow, leaver,"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(hiar: Hiar, words: tuple[str, ...], said: str) -> None:
    status, out, told = hiar(*words)
    assert (status, out) == (2, "")
    assert told.startswith(f"hiar: {said}") and told.count("\n") == 1


@pytest.mark.parametrize("words", [("generate", "x", "--seconds", "0"), ("generate", "x", "--colour"), ("videos", "x")])
def test_what_the_parser_refuses_is_a_usage_error(hiar: Hiar, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        hiar(*words)


def test_prompts_come_from_files(hiar: Hiar, live: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("a green triangle\n")
    assert hiar("generate", "@prompt.txt", "--seconds", "1")[0] == 0
    assert live.engine.opened[-1].request.prompts[0].text == "a green triangle"
    assert (tmp_path / "a-green-triangle.mp4").exists()


def test_no_server_is_one_line(hiar: Hiar) -> None:
    status, _, told = hiar("status", "--url", "http://127.0.0.1:1")
    assert status == 1 and told.count("\n") == 1
    assert told.startswith("hiar: no server answers at http://127.0.0.1:1; ")


def test_a_key_is_sent(hiar: Hiar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(line("alice", ALICE))
    with serving(keys=tmp_path / "keys.txt") as live:
        status, _, told = hiar("videos", "--url", live.url)
        assert status == 1 and told.endswith("[unauthorized]\n")
        monkeypatch.setenv("HIAR_KEY", ALICE)
        assert hiar("videos", "--url", live.url)[0] == 0


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        (
            "A large red circle drifts to the right over a night sky",
            "a-large-red-circle-drifts-to-the-right-over-a-night-sky",
        ),
        ("../../etc/passwd", "etc-passwd"),
        ("ein Füchslein: läuft", "ein-füchslein-läuft"),
        ("x" * 200, "video"),
        ("!?", "video"),
        ("word " * 50, "-".join(["word"] * 12)),
    ],
)
def test_a_file_is_named_by_the_words_of_the_prompt(prompt: str, name: str) -> None:
    assert name_of(prompt) == Path(f"{name}.mp4")


def parsers(one: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield one
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def test_every_command_has_help_with_examples() -> None:
    whole = list(parsers(parser()))
    assert len(whole) > 18
    assert all("\nexamples:\n  " in one.format_help() for one in whole)
