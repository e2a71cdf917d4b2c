"""Messages between nodes: every class crosses unchanged, and nothing else gets in."""

import asyncio
import dataclasses
import inspect

import pytest

from engine import messages
from engine.engine_config import Fault, FaultKind, Precision, Rehearsal
from engine.fleet import wire
from engine.law.placement import PassCosts, Placement, Plan
from engine.request import Output, Pixels, Quality, TensorBytes
from engine.trace import Phase, Rests, Span

TENSOR = TensorBytes(dtype="bfloat16", shape=(2, 64), data=bytes(range(256)))
PLACEMENT = Placement(
    rank=1,
    device="cuda:0",
    chain=0,
    stages=(2, 3),
    decodes=True,
    embeds_text=False,
    previous=0,
    next=None,
    load_s=0.1 + 0.2,
)
SPAN = Span(phase=Phase.CACHE, rank=1, stage=None, video="s", block=-1, began_s=1e9 + 1e-7, ended_s=2e9)
FACTS = messages.WorkerFacts(
    device_name="H100",
    num_pages=14,
    page_bytes=2**40,
    attention="sdpa",
    attentions=("triton-tma", "sdpa"),
    dtype="bfloat16",
    encoder=None,
    codecs="avc1.42c01e",
    takes_pictures=True,
    memory=messages.MemoryUse(items=(("pages", 2**40),), total_bytes=2**41),
)
REHEARSAL = Rehearsal(pass_s=0.1, faults=(Fault(kind=FaultKind.HANG, stage=0, block=3, seed=2**64 - 1),))
EXAMPLES = (
    wire.Hello(
        node_rank=1,
        num_nodes=2,
        devices=("cpu", "cpu"),
        model="tiny",
        model_digest="a",
        version="0.1.0",
        version_digest="b",
        token_digest="",
    ),
    wire.Welcome(
        max_videos=2,
        max_segments=None,
        stage_timeout_s=20.0,
        poison_pages=True,
        precision=Precision(kv_dtype="fp8", attention_dtype="int8"),
        dtype="bfloat16",
        text_device="cpu",
        rehearsal=REHEARSAL,
    ),
    wire.Refusal(sentence='a "quoted" süß \n line'),
    wire.StartWorker(device="cpu"),
    wire.KillWorker(),
    wire.AbortWorker(),
    wire.WorkerEnded(sentence="the worker on cpu ended with exit code -9"),
    wire.NodeBeat(),
    messages.DeviceOpened(kind="H100", free_bytes=2**36, host_free_bytes=2**37, fp8=True),
    messages.StartProgress(phase=messages.StartPhase.READING, what="hiar.pt", done=1, total=2**34),
    messages.MeasureCosts(),
    messages.Assign(
        rank=1,
        plan=Plan(placements=(PLACEMENT,)),
        rendezvous=messages.Rendezvous(store="tcp:10.9.0.1:29500", generation=3),
    ),
    messages.EncodePrompt(request=1, text="ein Fuchs \U0001f98a \x00"),
    messages.EncodePixels(request=1, pixels=Pixels(num_frames=1, width_px=2, height_px=1, data=bytes(range(250, 256)))),
    messages.Cancel(video="s"),
    messages.Shutdown(),
    messages.OpenTicket(
        video="s",
        seed=2**64 - 1,
        latent_height=12,
        latent_width=12,
        fps=16,
        quality=Quality.HIGH,
        output=Output.LATENTS,
        embedding=TENSOR,
    ),
    messages.RestoreTicket(video="s", block=10**9, latents=((0, TENSOR), (3, TENSOR)), clean=True),
    messages.ContextTicket(video="s", block=1, latents=TENSOR),
    messages.BlockTicket(video="s", block=0, num_frames=9, last=False, given=TENSOR, opening=True, alone=True),
    messages.BlockTicket(video="s", block=0, num_frames=9, last=True, save=True),
    messages.PromptTicket(video="s", embedding=dataclasses.replace(TENSOR, shape=(0, 64), data=b"")),
    messages.CloseTicket(video="s"),
    messages.CostsMeasured(costs=PassCosts(denoise_s=(0.1, float("inf")), decode_s=0.0), load_s=1.5),
    messages.WorkerReady(facts=FACTS),
    messages.WorkBegins(videos=("s", "t")),
    messages.Beat(tickets_passed=7, pages_used=1, spans=(SPAN, SPAN), rests=Rests(input_s=0.5)),
    messages.Idle(spans=(SPAN,), rests=Rests(none_s=1.0)),
    messages.StartFailed(code="bad_weights", message="x"),
    messages.PromptEncoded(request=1, embedding=TENSOR),
    messages.PixelsEncoded(request=1, blocks=(TENSOR, TENSOR)),
    messages.PixelsFailed(request=1, code="engine_oom", message="x"),
    messages.PromptFailed(request=1, code="engine_oom", message="x"),
    messages.InitReady(video="s", data=b"\x00ftyp\xff", codecs="avc1"),
    messages.BlockDone(video="s", block=1, num_frames=12, data=b"", latents=TENSOR, decode_s=0.5, encode_s=1e-9),
    messages.BlockRepeated(video="s", block=1),
    messages.LatentsSaved(video="s", block=1, stage=2, latents=TENSOR),
    messages.VideoBroken(video="s", code="engine_oom", message=""),
    messages.VideoClosed(video="s", pages_used=0),
)


def read_bytes(data: bytes, limit_bytes: int = wire.MAX_FRAME_BYTES) -> list[tuple[int, object]]:
    """Every frame of a stream that ends after ``data``."""

    async def read_all() -> list[tuple[int, object]]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        frames = []
        while not reader.at_eof():
            frames.append(await wire.read(reader, limit_bytes))
        return frames

    return asyncio.run(read_all())


def test_every_message_crosses_unchanged() -> None:
    stream = b"".join(wire.pack(message, worker) for worker, message in enumerate(EXAMPLES))
    frames = read_bytes(stream)
    assert frames == list(enumerate(EXAMPLES))
    assert [type(message) for _, message in frames] == [type(message) for message in EXAMPLES]


def test_no_message_is_forgotten() -> None:
    assert {type(message) for message in EXAMPLES} == set(wire.MESSAGES)
    inside = {TensorBytes, messages.Rendezvous, messages.WorkerFacts, messages.MemoryUse}
    defined = {
        kind
        for _, kind in inspect.getmembers(messages, dataclasses.is_dataclass)
        if kind.__module__ == messages.__name__
    }
    assert defined - inside <= set(wire.MESSAGES)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"Shutdown",
        b"Shutdown\n",
        b"Shutdown\n{}",
        b"Shutdown\n[0]",
        b'Shutdown\n["0",{}]',
        b'Shutdown\n[0,{"x":1}]',
        b"Path\n[0,{}]",
        b"TensorBytes\n[0,{}]",
        b"\xff\xfe\n[0,{}]",
        b"shutdown\n[0,{}]",
        b"StartWorker\n[1,{}]",
        b'StartWorker\n[1,{"device":1}]',
        b'StartWorker\n[1,{"device":"cpu"},2]',
        b'InitReady\n[1,{"video":"s","data":"***","codecs":"c"}]',
        b"\x80\x04\x95\x00\x00\n.",
    ],
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        wire.unpack(payload)


def test_what_may_not_cross_is_not_packed() -> None:
    for stranger in (TENSOR, "Shutdown", None, type("Shutdown", (), {})()):
        with pytest.raises(ValueError, match="does not cross"):
            wire.pack(stranger)


def test_a_field_of_another_type_is_not_packed() -> None:
    with pytest.raises(ValueError):
        wire.pack(wire.StartWorker(device=3))  # type: ignore[arg-type]


def test_a_truncated_frame_is_an_end_of_stream() -> None:
    frame = wire.pack(EXAMPLES[0])
    for length in (1, 3, 4, 5, len(frame) - 1):
        with pytest.raises(EOFError):
            read_bytes(frame[:length])


def test_an_oversized_frame_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="4294967295 bytes"):
        read_bytes(b"\xff\xff\xff\xff" + b"x")
    frame = wire.pack(EXAMPLES[0])
    assert read_bytes(frame, len(frame) - wire.LENGTH_BYTES)
    with pytest.raises(ValueError, match="above the limit"):
        read_bytes(frame, len(frame) - wire.LENGTH_BYTES - 1)
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 100)
    with pytest.raises(ValueError, match="above the limit of 100"):
        wire.pack(messages.InitReady(video="s", data=bytes(100), codecs="c"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "it is silent"),
        (asyncio.IncompleteReadError(b"", 4), "it closed the connection"),
        (ConnectionRefusedError(111, "x"), "Connection refused"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions: a, b"),
        (ValueError("long\nstory"), "it speaks another language"),
    ],
)
def test_the_reason_of_a_loss_is_a_few_words(error: OSError | EOFError | ValueError, words: str) -> None:
    assert wire.reason(error) == words
