"""``hiar-download`` against a hub on this machine: what arrives, what is refused, and what is said."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from engine import BASE_FILES, PRESETS, Layout, Preset, StartError, read_manifest
from server.download import command
from server.download.hub import SAFE_SUFFIXES
from tests.server.hub_site import COMMIT, HubSite, hub_site

pytestmark = pytest.mark.in_turn

TINY = Path(__file__).parents[2] / "models" / "tiny"
WEIGHTS = bytes(range(256)) * 1200
WAN_CONFIG = {"dim": 1536, "ffn_dim": 8960, "freq_dim": 256, "in_dim": 16, "num_heads": 12, "num_layers": 30}
REPOS = {
    "someone/tiny": {
        **{file.name: file.read_bytes() for file in TINY.iterdir()},
        "README.md": b"words",
        "model.py": b"print('never')",
        "onnx/model.safetensors": b"elsewhere",
    },
    "someone/small": {"manifest.json": b"{}", "w.safetensors": WEIGHTS},
    "someone/pickles": {"config.json": b"{}", "model.pt": WEIGHTS},
    "someone/escaping": {"../out.safetensors": WEIGHTS, "config.json": b"{}"},
    "jackyhate/HiAR": {"hiar.pt": WEIGHTS, "README.md": b"words"},
    "Wan-AI/Wan2.1-T2V-1.3B": {
        "config.json": json.dumps({**WAN_CONFIG, "text_len": 512}).encode(),
        "Wan2.1_VAE.pth": b"vae",
        "models_t5_umt5-xxl-enc-bf16.pth": b"text encoder",
        "google/umt5-xxl/tokenizer.json": b"{}",
        "diffusion_pytorch_model.safetensors": b"not needed",
    },
    "Kijai/WanVideo_comfy": {"taew2_1.safetensors": b"decoder", "other.safetensors": b"not needed"},
}

Run = Callable[..., Path]


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_384)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubSite]:
    with hub_site(REPOS) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command into one folder, which is returned."""

    def start(*arguments: str) -> Path:
        folder = tmp_path / "model"
        command.main([*arguments, "--to", str(folder)])
        return folder

    return start


def refusal(run: Run, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    text = str(caught.value.code)
    assert text.startswith("hiar-download: ") and "\n" not in text
    return text


def names_in(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - {".hiar-download.lock"}


# --- what arrives ---


def test_a_model_that_can_be_served(site: HubSite, run: Run) -> None:
    folder = run("someone/tiny")
    assert names_in(folder) == {".complete", *(file.name for file in TINY.iterdir())}
    assert all((folder / file.name).read_bytes() == file.read_bytes() for file in TINY.iterdir())
    assert read_manifest(folder).name == "tiny"


def test_hiar_comes_from_two_repositories(site: HubSite, run: Run) -> None:
    folder = run("hiar")
    wan = {"config.json", "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json"}
    assert names_in(folder) == {".complete", "hiar.json", "hiar.pt", *wan}
    manifest = read_manifest(folder)
    assert manifest.transformer_file == folder / "hiar.pt"
    assert manifest.tokenizer_file is not None and (manifest.tokenizer_file / "tokenizer.json").is_file()


def repos_of(preset: Preset) -> dict[str, dict[str, bytes]]:
    """All that the preset's repositories would hold, with other files beside it."""
    config = {**WAN_CONFIG, "text_len": 512}
    layout = {"attention_head_dim": 128, "num_attention_heads": 12, "in_channels": 16, "text_dim": 4096}
    texts = {"config.json": config, "transformer/config.json": {**config, **layout}}
    students = (preset.file, *(lora.file for lora in preset.loras))
    if preset.layout is Layout.DIFFUSERS:
        students = (*students, "transformer/config.json")
    repos: dict[str, dict[str, bytes]] = {preset.hub_id: {"other.pt": WEIGHTS}, preset.base_hub_id: {}}
    for repo, patterns in ((preset.hub_id, students), (preset.base_hub_id, BASE_FILES[preset.layout])):
        for name in (pattern.replace("*", "x") for pattern in patterns):
            repos[repo][name] = json.dumps(texts[name]).encode() if name in texts else name.encode() * 100
    return repos


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_preset_comes_with_its_base_and_tells_its_roll_out(site: HubSite, run: Run, preset: Preset) -> None:
    site.repos.update(repos_of(preset))
    folder = run(preset.name)
    assert json.loads((folder / "hiar.json").read_text()) == {"preset": preset.name}
    assert "other.pt" not in names_in(folder) and not (folder / ".hiar-download").exists()
    manifest = read_manifest(folder)
    assert (manifest.preset, manifest.rollout) == (preset.name, preset.rollout)
    parts = (manifest.transformer_file, manifest.decoder_file, manifest.text_file, manifest.tokenizer_file)
    assert all(part is not None and part.exists() for part in (*parts, *(lora.file for lora in manifest.loras)))


def test_what_a_person_wrote_of_the_roll_out_stays(site: HubSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    site.repos.update(repos_of(PRESETS["longlive"]))
    folder = run("longlive")
    own = {"preset": "longlive", "rollout": {"window_latent_frames": 15}}
    (folder / "hiar.json").write_text(json.dumps(own))
    (folder / ".complete").unlink()
    assert json.loads((run("longlive") / "hiar.json").read_text()) == own
    fetched = len(site.served)
    run("longlive-infinity")
    assert read_manifest(folder).preset == "longlive-infinity" and len(site.served) == fetched
    assert "preset longlive-infinity: LongLive, positions relative" in capsys.readouterr().out


def test_the_roll_out_is_told_of_a_folder_that_was_filled_before(site: HubSite, run: Run) -> None:
    folder = run("hiar")
    (folder / "hiar.json").unlink()
    fetched = len(site.served)
    run("hiar")
    assert read_manifest(folder).preset == "hiar" and len(site.served) == fetched


def test_the_roll_out_is_told_last(site: HubSite, run: Run, tmp_path: Path) -> None:
    site.refusals["/Wan-AI/Wan2.1-T2V-1.3B/resolve"] = (503, {})
    assert "answered 503" in refusal(run, "hiar")
    assert not (tmp_path / "model" / "hiar.json").exists()


def test_a_repository_of_a_model_trained_as_a_preset(site: HubSite, run: Run) -> None:
    folder = run("someone/small", "--preset", "self-forcing")
    assert json.loads((folder / "hiar.json").read_text()) == {"preset": "self-forcing"}


def test_the_small_decoder_joins_a_model(site: HubSite, run: Run) -> None:
    run("hiar")
    fetched = len(site.served)
    folder = run("hiar", "--tiny-decoder")
    assert [name for name, _ in site.served[fetched:]] == ["taew2_1.safetensors"]
    assert read_manifest(folder, "tiny").decoder_file == folder / "taew2_1.safetensors"


def test_a_part_that_was_given_up_does_not_hold_up_the_rest(site: HubSite, run: Run, tmp_path: Path) -> None:
    run("hiar")
    site.refusals["/Kijai/WanVideo_comfy/resolve"] = (503, {})
    assert "answered 503" in refusal(run, "hiar", "--tiny-decoder")
    with pytest.raises(StartError, match="is incomplete"):
        read_manifest(tmp_path / "model")
    assert read_manifest(run("hiar")).name == "model"


def test_only_some_files(site: HubSite, run: Run) -> None:
    assert names_in(run("someone/tiny", "--only", "*.json")) == {".complete", "manifest.json", "tokenizer.json"}


def test_dry_run_lists_and_writes_nothing(site: HubSite, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run("hiar", "--dry-run").exists()
    text = capsys.readouterr().out
    assert "307.2 kB  hiar.pt  (jackyhate/HiAR at 0123456789ab)" in text
    assert "in 5 files" in text
    assert not site.served


def test_a_token_is_shown_to_the_hub(site: HubSite, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run("someone/small")
    assert site.tokens == ["Bearer hf_secret"] * 3


# --- again ---


def test_a_complete_folder_needs_no_hub(site: HubSite, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run("someone/small", "--revision", COMMIT)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    run("someone/small", "--revision", COMMIT)
    (folder / "w.safetensors").unlink()
    assert "cannot reach http://127.0.0.1:9" in refusal(run, "someone/small", "--revision", COMMIT)


def test_what_was_lost_or_changed_is_fetched_again(site: HubSite, run: Run) -> None:
    folder = run("someone/small")
    (folder / "w.safetensors").write_bytes(WEIGHTS[:-1] + b"x")
    (folder / ".complete").unlink()
    site.served.clear()
    run("someone/small")
    assert [name for name, _ in site.served] == ["w.safetensors"]
    assert (folder / "w.safetensors").read_bytes() == WEIGHTS


def test_a_cut_download_goes_on_where_it_was(site: HubSite, run: Run, tmp_path: Path) -> None:
    site.cuts["w.safetensors"] = 200_000
    assert "answered 503" in refusal(run, "someone/small", "--only", "w.safetensors")
    with pytest.raises(StartError, match=r"model is incomplete: .* hiar-download command again"):
        read_manifest(tmp_path / "model")
    site.refusals.clear()
    folder = run("someone/small", "--only", "w.safetensors")
    assert (folder / "w.safetensors").read_bytes() == WEIGHTS
    first, resumed = site.served
    kept = (200_000 // 16_384) * 16_384
    assert first == ("w.safetensors", None) and resumed == ("w.safetensors", f"bytes={kept}-")


def test_two_at_once_fetch_once(site: HubSite, tmp_path: Path) -> None:
    site.gate = threading.Event()
    command = [sys.executable, "-m", "server.download.command", "someone/small", "--to", str(tmp_path / "model")]
    environment = {**os.environ, "HF_ENDPOINT": site.url}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [next(iter(process.stdout or ())) for process in both]
    assert any("another process downloads into" in line for line in lines)
    site.gate.set()
    assert all(process.communicate()[0].endswith(f"--model {tmp_path / 'model'}\n") for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(name for name, _ in site.served) == ["manifest.json", "w.safetensors"]


# --- what is refused ---


def test_a_wrong_checksum_leaves_no_file(site: HubSite, run: Run, tmp_path: Path) -> None:
    site.altered["w.safetensors"] = WEIGHTS[::-1]
    assert "w.safetensors of someone/small arrived damaged" in refusal(run, "someone/small")
    assert not (tmp_path / "model" / "w.safetensors").exists()
    site.altered.clear()
    assert (run("someone/small") / "w.safetensors").read_bytes() == WEIGHTS


def test_a_small_file_is_checked_too(site: HubSite, run: Run) -> None:
    site.altered["manifest.json"] = b"[]"
    assert "manifest.json of someone/small arrived damaged" in refusal(run, "someone/small")


def test_pickles_are_not_taken(site: HubSite, run: Run, tmp_path: Path) -> None:
    assert f"model.pt is not taken; only {', '.join(SAFE_SUFFIXES)} are" in refusal(
        run, "someone/pickles", "--only", "*.pt"
    )
    assert "has no safetensors that a server can read" in refusal(run, "someone/pickles")
    assert not (tmp_path / "model").exists()


def test_no_file_leaves_the_folder(site: HubSite, run: Run) -> None:
    assert "../out.safetensors is not taken" in refusal(run, "someone/escaping", "--only", "../*")
    assert "has no safetensors" in refusal(run, "someone/escaping")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["someone/missing"], "has no someone/missing, or shows it to some accounts only"),
        (["someone/small", "--revision", "v9"], "someone/small has no revision 'v9'"),
        (["someone/small", "--only", "x.json"], "someone/small has no x.json; it has manifest.json, w.safetensors"),
        (["not a/name"], "'not a/name' is no hub id like owner/name"),
        (["krea", "--revision", "v1"], "'krea' is no hub id like owner/name and none of the presets hiar, self-f"),
        (["someone/small", "--preset", "krea"], "there is no preset 'krea'; there are hiar, self-forcing, "),
        (["hiar", "--preset", "causvid"], "hiar is a preset itself; leave --preset causvid out"),
        (["gdhe17/Self-Forcing"], "name its preset in its place, self-forcing or self-forcing-sid"),
        (["wlsaidhi/SFWan2.1-T2V-1.3B-Diffusers"], "name its preset in its place, self-forcing-diffusers"),
        (["hiar", "--revision", "v1"], "--only and --revision go with a repository, such as jackyhate/HiAR"),
    ],
)
def test_what_is_not_there_is_named(site: HubSite, run: Run, arguments: list[str], said: str, tmp_path: Path) -> None:
    assert said in refusal(run, *arguments)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {}, "set HF_TOKEN to a token that may read it"),
        (403, {"X-Error-Code": "GatedRepo"}, "asks for consent: give it at"),
        (403, {}, "does not let this account read someone/small: set another HF_TOKEN"),
        (404, {"X-Error-Code": "RepoNotFound"}, "check the name"),
        (500, {}, "answered 500 for someone/small"),
    ],
)
@pytest.mark.parametrize("where", ["/api/models/someone", "/someone"], ids=["listing", "file"])
def test_a_refusal_says_what_to_do(
    site: HubSite, run: Run, where: str, status: int, headers: dict[str, str], said: str
) -> None:
    site.refusals[where] = (status, headers)
    assert said in refusal(run, "someone/small")


def test_a_model_larger_than_the_disk(site: HubSite, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "has 1.0 kB free and 307.2 kB are still to come" in refusal(run, "someone/small")
    assert not site.served


def test_a_disk_that_gets_full(site: HubSite, run: Run, tmp_path: Path) -> None:
    checksum = site.listing("someone/small")["siblings"][1]["lfs"]["sha256"]
    partial = tmp_path / "model" / ".hiar-download"
    partial.mkdir(parents=True)
    (partial / f"{checksum}.part").symlink_to("/dev/full")
    assert "is full; what has arrived is kept: make room" in refusal(run, "someone/small")


def test_a_folder_that_cannot_be_written(site: HubSite, run: Run, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    assert f"cannot write {tmp_path / 'model'}: File exists" in refusal(run, "someone/small")


def test_it_needs_no_torch() -> None:
    program = "import sys, server.download.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
