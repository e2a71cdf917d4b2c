"""Settings come from flags, then environment, then defaults; a bad one says what is wrong with it."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from engine import PRESETS, EngineOptions, Lora, Nodes, Order, Precision, RolloutChanges
from server.environment import unknown_settings
from server.main import engine_config
from server.model import roll_out_words
from server.options import OPTIONS
from server.settings import SettingError, Settings, read_settings

CHART_VALUES = Path(__file__).parents[2] / "deploy" / "helm" / "hiar-server" / "values.yaml"
OF_THE_ENGINE = [option for option in OPTIONS if option.of not in (None, RolloutChanges)]
BY_NAME = {option.name: option for option in OPTIONS}
IN_THE_CHART = {
    "max_videos": "server.maxVideos",
    "max_queue": "server.maxQueue",
    "max_seconds": "server.maxVideoSeconds",
    "lead_target_s": "server.leadTargetSeconds",
    "start_timeout_s": "server.startTimeoutSeconds",
    "stage_timeout_s": "server.stageTimeoutSeconds",
    "recovery_grace_s": "server.recoveryGraceSeconds",
    "drain_timeout_s": "shutdown.drainSeconds",
    "log_level": "server.logLevel",
    "log_format": "server.logFormat",
    "max_per_client": "server.maxPerClient",
    "keep_hours": "durability.keepHours",
    "keep_bytes": "durability.keepBytes",
    "max_upload": "server.maxUploadBytes",
    "port": "server.port",
    "text_device": "model.textDevice",
    "dtype": "model.dtype",
    "kv_dtype": "model.kvDtype",
    "linear_dtype": "model.linearDtype",
    "attention_dtype": "model.attentionDtype",
}


def value_of(settings: Settings, name: str) -> object:
    """What a setting is, by its option's name, wherever it is held."""
    engine, option = settings.engine, BY_NAME[name]
    holders = {
        None: settings,
        RolloutChanges: settings.changes,
        EngineOptions: engine,
        Precision: engine.precision,
        Nodes: engine.nodes,
    }
    return getattr(holders[option.of], option.field)


def test_an_option_is_a_field_of_the_one_record_that_holds_it() -> None:
    assert len(OF_THE_ENGINE) == 17
    for option in OPTIONS:
        assert option.field in {item.name for item in fields(option.of or Settings)}
    ours = {item.name for item in fields(Settings)}
    assert ours.isdisjoint(option.name for option in OF_THE_ENGINE)


def test_the_help_tells_the_engines_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    shown = " ".join(capsys.readouterr().out.split())
    for option in OF_THE_ENGINE:
        if option.default is None:
            (told,) = re.findall(rf" {option.flag} [A-Z]+ .*?\(default: (\S+)\)", shown)
            default = getattr(option.of, option.field)
            text = ",".join(default) if isinstance(default, tuple) else default
            assert told == (text if isinstance(text, str) else f"{text:g}")


def test_the_chart_has_the_same_defaults() -> None:
    values = yaml.safe_load(CHART_VALUES.read_text())
    found = {}
    for name, path in IN_THE_CHART.items():
        group, _, key = path.partition(".")
        found[name] = values[group][key]
    assert found == {name: value_of(Settings(), name) for name in IN_THE_CHART}


def test_every_setting_of_the_engine_reaches_it() -> None:
    chosen = "--devices cuda:3,cuda:1 --text-device cuda:1 --dtype float32 --max-videos 3 --max-queue 5 --lead-target 4"
    times = "--start-timeout 7 --stage-timeout 6 --recovery-grace 5 --kv-dtype fp8 --linear-dtype fp8"
    nodes = "--attention-dtype int8 --nnodes 2 --node-rank 1 --master-addr a --master-port 8"
    settings = read_settings(f"{chosen} {times} {nodes} --keep-seconds 9".split(), {})
    for option in OF_THE_ENGINE:
        assert value_of(settings, option.name) != getattr(option.of, option.field, None)
    config = engine_config(settings)
    assert {name: getattr(config, name) for name in vars(settings.engine)} == vars(settings.engine)
    assert config.nodes == Nodes(num_nodes=2, rank=1, master_addr="a", master_port=8)


def test_what_the_model_is_and_what_changes() -> None:
    changes = "--steps 1000,600,200 --shift 3 --window 12 --sink 3 --order Block_First"
    settings = read_settings(f"--preset LongLive {changes} --lora a.pt --lora b.safetensors:0.5,c:d:-2".split(), {})
    assert settings == Settings(
        preset="longlive",
        changes=RolloutChanges(
            denoising_steps=(1000, 600, 200),
            timestep_shift=3.0,
            window_latent_frames=12,
            sink_latent_frames=3,
            order=Order.BLOCK_FIRST,
        ),
        loras=(
            Lora(file=Path("a.pt")),
            Lora(file=Path("b.safetensors"), scale=0.5),
            Lora(file=Path("c:d"), scale=-2.0),
        ),
    )
    environment = {"HIAR_PRESET": "hiar", "HIAR_LORA": "x.pt, y.pt:2", "HIAR_WINDOW": "9"}
    assert read_settings([], environment) == Settings(
        preset="hiar",
        changes=RolloutChanges(window_latent_frames=9),
        loras=(Lora(file=Path("x.pt")), Lora(file=Path("y.pt"), scale=2.0)),
    )
    assert read_settings(["--lora", "z.pt"], environment).loras == (Lora(file=Path("z.pt")),)


def test_changes_reach_the_model_and_are_told() -> None:
    settings = read_settings(["--window", "9", "--steps", "1000,500"], {})
    manifest = engine_config(settings).manifest
    assert (manifest.rollout.window_latent_frames, manifest.rollout.num_stages) == (9, 2)
    assert roll_out_words(manifest, settings) == "roll-out of model tiny with --steps 1000,500 --window 9"


def test_a_plan_of_a_preset_needs_no_folder_and_a_server_does() -> None:
    settings = read_settings(["--preset", "longlive", "--plan", "--decoder", "tiny", "--sizes", "480x480"], {})
    manifest = engine_config(settings).manifest
    assert (manifest.name, manifest.rollout) == ("longlive", PRESETS["longlive"].rollout)
    assert manifest.decoder is not None and manifest.decoder.kind == "tiny"
    assert manifest.video.sizes == ((480, 480),)
    assert roll_out_words(manifest, settings) == "roll-out of preset longlive"
    with pytest.raises(SettingError) as caught:
        engine_config(read_settings(["--preset", "longlive"], {}))
    assert str(caught.value) == (
        "--preset longlive needs the folder of the model by --model DIR; hiar-download longlive --to DIR makes one"
    )


def test_defaults() -> None:
    settings = read_settings([], {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 8000, EngineOptions())
    assert settings.model.parts[-2:] == ("models", "tiny")


def test_every_flag() -> None:
    flags = "--model m --devices cuda:0,cuda:11 --host ::1 --port 0 --max-videos 3 --max-queue 0 --max-seconds 1.5"
    times = "--lead-target 0.5 --stage-timeout 6 --recovery-grace 7 --drain-timeout 5 --metrics-port 1"
    nodes = "--decoder Tiny --nnodes 4 --node-rank 3 --master-addr 10.9.0.1 --master-port 65534"
    bits = "--kv-dtype FP8 --linear-dtype fp8 --attention-dtype int8"
    settings = read_settings([*f"{flags} {times} {nodes} {bits}".split(), "--log-level", "DEBUG"], {})
    assert settings == Settings(
        model=Path("m"),
        decoder="tiny",
        engine=EngineOptions(
            devices=("cuda:0", "cuda:11"),
            nodes=Nodes(num_nodes=4, rank=3, master_addr="10.9.0.1", master_port=65534),
            max_videos=3,
            max_queue=0,
            precision=Precision(kv_dtype="fp8", linear_dtype="fp8", attention_dtype="int8"),
            lead_target_s=0.5,
            stage_timeout_s=6.0,
            recovery_grace_s=7.0,
        ),
        host="::1",
        port=0,
        metrics_port=1,
        max_seconds=1.5,
        drain_timeout_s=5.0,
        log_level="debug",
    )


def test_the_environment_is_read_and_a_flag_wins() -> None:
    environment = {"HIAR_PORT": "9000", "HIAR_MAX_QUEUE": "1", "HIAR_DRAIN_TIMEOUT": "2", "PORT": "1"}
    settings = read_settings(["--port", "9001"], environment)
    assert (settings.port, settings.engine.max_queue, settings.drain_timeout_s) == (9001, 1, 2.0)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("PORT", "eighty", "0..65535"),
        ("PORT", "65536", "0..65535"),
        ("PORT", "", "0..65535"),
        ("DECODER", "huge", "wan or tiny"),
        ("DECODER", "", "wan or tiny"),
        ("KV_DTYPE", "int8", "auto or fp8"),
        ("LINEAR_DTYPE", "", "auto or fp8"),
        ("ATTENTION_DTYPE", "fp8", "auto or int8"),
        ("DEVICES", "gpu", "cuda:0,cuda:1"),
        ("DEVICES", "cuda:0,", "cuda:0,cuda:1"),
        ("DEVICES", "cuda:\u00b2", "cuda:0,cuda:1"),
        ("TEXT_DEVICE", "cuda:0,cuda:1", "a device like cuda:0"),
        ("MAX_VIDEOS", "0", "1..1024"),
        ("MAX_SECONDS", "nan", "above 0"),
        ("MAX_SECONDS", "inf", "above 0"),
        ("LOG_LEVEL", "loud", "debug or info"),
        ("HOST", " ", "a host name"),
        ("MODEL", "", "a folder"),
        ("PRESET", "krea", "one of hiar, self-forcing"),
        ("STEPS", "250,500", "a falling list like 1000,750,500,250"),
        ("STEPS", "1000,1000", "a falling list"),
        ("STEPS", "1000,0", "each 1..1000"),
        ("STEPS", "", "a falling list"),
        ("SHIFT", "0", "above 0"),
        ("WINDOW", "0", "1..10000"),
        ("SINK", "-3", "0..10000"),
        ("ORDER", "diagonal", "step_first or block_first"),
        ("LORA", "a.pt:big", "FILE or FILE:SCALE"),
        ("LORA", "a.pt:nan", "FILE or FILE:SCALE"),
        ("LORA", "a.pt,,b.pt", "FILE or FILE:SCALE"),
        ("LORA", ":2", "FILE or FILE:SCALE"),
        ("STAGE_TIMEOUT", "0", "above 0"),
        ("RECOVERY_GRACE", "-1", "above 0"),
        ("LEAD_TARGET", "soon", "above 0"),
        ("NNODES", "0", "1..1024"),
        ("NODE_RANK", "-1", "0..1023"),
        ("MASTER_ADDR", "", "a host name"),
        ("MASTER_PORT", "65535", "1..65534"),
    ],
)
def test_a_bad_value_names_key_value_and_expectation(key: str, value: str, expected: str) -> None:
    flag = "--" + key.lower().replace("_", "-")
    for arguments, environment, name in ([], {f"HIAR_{key}": value}, f"HIAR_{key}"), ([flag, value], {}, flag):
        with pytest.raises(SettingError) as caught:
            read_settings(arguments, environment)
        assert str(caught.value).startswith(f"{name} is {value!r}; expected ")
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--devices cpu,cuda:0", "devices cpu,cuda:0 mix CPU and GPU"),
        ("--devices cuda:1,cuda:1", "devices cuda:1,cuda:1 name a GPU twice"),
        ("--text-device cuda:2", "--text-device cuda:2 is none of auto, cpu"),
    ],
)
def test_what_the_engine_objects_to_is_told_as_it_says(arguments: str, sentence: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings(arguments.split(), {})
    assert str(caught.value) == sentence


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
    assert "default: the small model" in " ".join(shown.split())
    assert "default: 29500" in shown
    assert "default: the model's own" in " ".join(shown.split())
    assert "default: no limit" in shown
    assert "needed with several nodes" in " ".join(shown.split())


TORCHRUN = {
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29400",
    "WORLD_SIZE": "2",
    "RANK": "1",
    "GROUP_RANK": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
LWS = {"LWS_LEADER_ADDRESS": "hiar-0.hiar", "LWS_GROUP_SIZE": "3", "LWS_WORKER_INDEX": "2"}


def node_settings(environment: dict[str, str], *arguments: str) -> tuple[int, int, str, int]:
    nodes = read_settings(arguments, environment).engine.nodes
    assert nodes is not None
    return nodes.num_nodes, nodes.rank, nodes.master_addr, nodes.master_port


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


def test_torchrun_says_which_node_this_is_and_our_port_is_not_that_of_its_store() -> None:
    assert node_settings(TORCHRUN) == (2, 1, "node-a", 29410)
    assert node_settings(without(TORCHRUN, "TORCHELASTIC_RUN_ID")) == (2, 1, "node-a", 29410)
    plain = without(TORCHRUN, "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE")
    assert node_settings(plain) == (2, 1, "node-a", 29400)
    assert node_settings(without(plain, "MASTER_PORT", "LOCAL_WORLD_SIZE")) == (2, 1, "node-a", 29500)


def test_a_leader_worker_set_says_which_node_this_is() -> None:
    assert node_settings(LWS) == (3, 2, "hiar-0.hiar", 29500)
    assert node_settings({**LWS, "HIAR_MASTER_PORT": "1000"}) == (3, 2, "hiar-0.hiar", 1000)


def test_of_several_names_the_most_telling_one_holds() -> None:
    environment = {**TORCHRUN, **LWS, "NNODES": "8", "NODE_RANK": "5"}
    assert node_settings(environment)[:2] == (8, 5)
    assert node_settings(without(environment, "NODE_RANK"))[:2] == (8, 1)
    assert node_settings(without(environment, "NNODES", "NODE_RANK", "GROUP_RANK")) == (2, 1, "node-a", 29410)
    assert node_settings({**TORCHRUN, "NNODES": "", "NODE_RANK": ""}) == (2, 1, "node-a", 29410)


def test_our_own_settings_win_over_the_launcher() -> None:
    own = {"HIAR_NNODES": "3", "HIAR_NODE_RANK": "0", "HIAR_MASTER_ADDR": "a", "HIAR_MASTER_PORT": "7"}
    assert node_settings({**TORCHRUN, **own}) == (3, 0, "a", 7)
    assert node_settings({**TORCHRUN, **own}, "--node-rank", "2", "--master-addr", "b") == (3, 2, "b", 7)
    broken = {**TORCHRUN, "WORLD_SIZE": "x", "MASTER_PORT": "65530"}
    assert node_settings({**broken, **own}) == (3, 0, "a", 7)


@pytest.mark.parametrize("variable", ["NNODES", "WORLD_SIZE", "LWS_GROUP_SIZE", "HIAR_NNODES"])
def test_one_node_needs_and_heeds_nothing_of_a_launcher(variable: str) -> None:
    assert read_settings([], {variable: "1", "MASTER_PORT": "x", "RANK": "7"}) == Settings()


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, ("LOCAL_WORLD_SIZE is '4'", "--nproc-per-node 1", "each device")),
        ({"LOCAL_WORLD_SIZE": "2"}, ("LOCAL_WORLD_SIZE is '2'",)),
        ({**TORCHRUN, "NNODES": "1:4"}, ("NNODES is '1:4'", "1..1024")),
        ({**TORCHRUN, "MASTER_PORT": "x"}, ("MASTER_PORT is 'x'", "1..65534")),
        ({**TORCHRUN, "MASTER_PORT": "65525"}, ("MASTER_PORT is 65525", "1..65524", "--master-port")),
        ({**LWS, "LWS_WORKER_INDEX": "3"}, ("node rank is 3", "0..2")),
        (without(LWS, "LWS_LEADER_ADDRESS"), ("3 nodes", "no --master-addr")),
        (without(LWS, "LWS_WORKER_INDEX"), ("3 nodes", "no --node-rank")),
        ({"HIAR_NNODES": "2", "HIAR_NODE_RANK": "0"}, ("2 nodes", "no --master-addr", "host of node 0")),
        ({"HIAR_NODE_RANK": "1"}, ("node rank is 1", "--nnodes 1")),
    ],
)
def test_nodes_that_make_no_sense_are_one_sentence(environment: dict[str, str], parts: tuple[str, ...]) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings([], environment)
    for part in parts:
        assert part in str(caught.value)


def test_the_highest_port_under_torchrun() -> None:
    assert node_settings({**TORCHRUN, "MASTER_PORT": "65524"})[3] == 65534


def test_a_misspelt_setting_is_told_with_the_one_it_resembles() -> None:
    told = unknown_settings(["HIAR_PROT", "HIAR_PORT", "HIAR_KEY", "HIAR_XYZZY", "HIAR_SERVER_PORT", "PATH"])
    assert told == [
        "HIAR_PROT is no setting and is ignored; did you mean HIAR_PORT?",
        "HIAR_XYZZY is no setting and is ignored",
    ]


def test_examples_of_the_help_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  hiar-server ")]
    for line in lines:
        read_settings(shlex.split(line, comments=True)[1:], {})
    assert len(lines) >= 7
