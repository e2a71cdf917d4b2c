"""The worker process: owns one device, runs all its stages, and speaks with the front over one pipe.

The body of the process is ``Worker.run``: take what the front sent, run one forward, repeat; with nothing to run it
waits for the next message. The front owns this process: when the pipe closes, it exits at once.
"""

import ctypes
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.config import LATENT_STRIDE_PX, EngineConfig
from engine.errors import HiarError, StartError
from engine.media.decode import DecodeStage, Encoder
from engine.messages import (
    BlockTicket,
    Cancel,
    CloseTicket,
    EncodePrompt,
    OpenTicket,
    PromptEncoded,
    PromptTicket,
    SessionClosed,
    Shutdown,
    StartFailed,
    Ticket,
    WorkerReady,
)
from engine.model.decoder import Decoder
from engine.model.tensor_bytes import to_bytes
from engine.model.weights import load_decoder, load_transformer
from engine.request import EngineFacts, Output, Quality
from engine.schedule import frames_in_block, pages_per_session
from engine.stage.noise import KeyedNoise, Noise, RecordedNoise
from engine.stage.pages import PagePool
from engine.stage.runner import Runner

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
WARM_UP_SESSION = "warm-up"

Send = Callable[[Any], None]


def run_worker(config: EngineConfig, connection: Connection) -> None:
    """Entry point of the process. Returns when told to shut down or when the engine cannot start."""
    _tie_to_parent()
    inbox = _read_in_background(connection)
    with torch.inference_mode():
        try:
            worker = Worker(config, connection.send)
        except HiarError as error:
            connection.send(StartFailed(code=error.code, message=error.message))
            return
        worker.run(inbox)


class Prompts(Protocol):
    """Where prompt embeddings come from."""

    def embed(self, prompt: str) -> Tensor:
        """The prompt's valid rows [num_tokens, text_dim]."""
        ...


class RecordedPrompt:
    """The embedding of a recording, whatever the prompt says."""

    def __init__(self, path: Path) -> None:
        padded_TX = load_file(path)["context"]
        num_tokens = int(padded_TX.any(dim=1).nonzero().max()) + 1
        self._rows_TX = padded_TX[:num_tokens]

    def embed(self, prompt: str) -> Tensor:
        """The recorded rows [num_tokens, text_dim]."""
        return self._rows_TX


class Worker:
    """All stages of a model on one device."""

    def __init__(self, config: EngineConfig, send: Send) -> None:
        """Load the model, allocate its pages and warm up. Raises ``StartError`` or ``WeightsError``."""
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        self._config, self._manifest, self._send = config, config.manifest, send
        self._device = _open_device(config.devices[0])
        self._dtype = torch.float32 if self._device.type == "cpu" else getattr(torch, self._manifest.dtype)
        model = load_transformer(self._manifest.transformer, self._manifest.transformer_file, self._device, self._dtype)
        self._text = self._load_text()
        self._decode = DecodeStage(self._load_decoder(), _open_encoder, self._emit)
        self._pool = self._allocate_pages()
        self._muted = False
        self._codecs = ""
        self._runner = Runner(
            model=model,
            rollout=self._manifest.rollout,
            pool=self._pool,
            noise=self._noise_source(),
            deliver=self._deliver,
            max_segments=config.segments_limit,
        )
        self._warm_up()

    def run(self, inbox: "queue.SimpleQueue[Any]") -> None:
        """Serve until told to shut down."""
        self._send(WorkerReady(facts=self._facts()))
        busy = False
        while True:
            for message in _take(inbox, wait=not busy):
                if isinstance(message, Shutdown):
                    return
                self._accept(message)
            busy = self._runner.tick()

    def _accept(self, message: Ticket | EncodePrompt | Cancel) -> None:
        match message:
            case EncodePrompt():
                assert self._text is not None, "a prompt came to a model without a text encoder"
                embedding = self._text.embed(message.text)
                self._send(PromptEncoded(request=message.request, embedding=to_bytes(embedding)))
            case Cancel():
                self._runner.cancel(message.session)
            case _:
                self._runner.submit(message)

    def _deliver(self, ticket: Ticket, latents: Tensor | None) -> None:
        """The end of the chain: tickets reach the decode stage here."""
        match ticket:
            case OpenTicket():
                self._decode.open(ticket)
            case BlockTicket():
                if latents is not None and not self._runner.is_cancelled(ticket.session):
                    self._decode.finish_block(ticket, latents)
            case CloseTicket():
                self._decode.close(ticket.session)
                self._emit(SessionClosed(session=ticket.session, pages_used=self._runner.pages_used))
            case PromptTicket():
                pass  # a decoder reads no prompt

    def _emit(self, message: Any) -> None:
        if not self._muted:
            self._send(message)

    # --- parts ---

    def _load_text(self) -> Prompts | None:
        manifest = self._manifest
        if self._config.recording_file is not None:
            return RecordedPrompt(self._config.recording_file)
        if manifest.text is None or manifest.text_file is None or manifest.tokenizer_file is None:
            return None
        from engine.model.text import load_text_encoder  # noqa: PLC0415 - slow to import; not every run has text

        return load_text_encoder(manifest.text, manifest.text_file, manifest.tokenizer_file, self._device, self._dtype)

    def _load_decoder(self) -> Decoder | None:
        manifest = self._manifest
        if manifest.decoder is None or manifest.decoder_file is None:
            return None
        return load_decoder(manifest.decoder, manifest.decoder_file, self._device, self._dtype)

    def _noise_source(self) -> Noise:
        if self._config.recording_file is not None:
            return RecordedNoise(self._config.recording_file, self._device)
        return KeyedNoise(self._device)

    def _allocate_pages(self) -> PagePool:
        transformer, rollout = self._manifest.transformer, self._manifest.rollout
        num_pages = self._config.max_sessions * pages_per_session(rollout)
        pixels = max(width * height for width, height in self._manifest.video.sizes)
        page_tokens = rollout.latent_frames_per_block * pixels // (LATENT_STRIDE_PX * transformer.patch_px) ** 2
        try:
            return PagePool(
                num_pages=num_pages,
                num_layers=transformer.num_layers,
                page_tokens=page_tokens,
                num_heads=transformer.num_heads,
                head_dim=transformer.head_dim,
                dtype=self._dtype,
                device=self._device,
                poison=self._config.poison_pages,
            )
        except torch.OutOfMemoryError as error:
            raise StartError(
                f"{self._device} has no room for {num_pages} pages; lower --max-sessions "
                f"(now {self._config.max_sessions})"
            ) from error

    def _warm_up(self) -> None:
        """Send a short session through the whole chain, so that the first caller does not pay for first calls."""
        if self._text is None or self._manifest.decoder is None:
            return
        self._muted = True
        opening = self._warm_up_ticket(self._text)
        self._codecs = _codecs_of(opening)
        self._runner.submit(opening)
        for block in range(2):
            frames = frames_in_block(self._manifest.rollout, block)
            self._runner.submit(BlockTicket(session=WARM_UP_SESSION, block=block, num_frames=frames, last=block == 1))
        self._runner.submit(CloseTicket(session=WARM_UP_SESSION))
        while self._runner.tick():
            pass
        assert self._runner.pages_used == 0, "warm-up kept pages"
        self._muted = False

    def _warm_up_ticket(self, text: Prompts) -> OpenTicket:
        width_px, height_px = self._manifest.video.sizes[0]
        return OpenTicket(
            session=WARM_UP_SESSION,
            seed=0,
            latent_height=height_px // LATENT_STRIDE_PX,
            latent_width=width_px // LATENT_STRIDE_PX,
            fps=self._manifest.video.fps,
            quality=Quality.STANDARD,
            output=Output.FRAGMENTS,
            embedding=to_bytes(text.embed("warm up")),
        )

    def _facts(self) -> EngineFacts:
        decoder = self._manifest.decoder
        stages = [f"denoise[{stage}]" for stage in range(self._manifest.rollout.num_stages)]
        return EngineFacts(
            model=self._manifest.name,
            device_names=(_device_name(self._device),),
            stages_by_worker=((*stages, "decode"),),
            num_pages=self._pool.num_pages,
            page_bytes=self._pool.page_bytes,
            attention="torch-sdpa",
            decoder=decoder.kind if decoder else "none",
            encoder="libx264",
            codecs=self._codecs,
        )


def _open_encoder(ticket: OpenTicket) -> Encoder:
    from engine.media.encoder import BlockEncoder  # noqa: PLC0415 - machines without PyAV run all but the encoder

    return BlockEncoder(
        width_px=ticket.latent_width * LATENT_STRIDE_PX,
        height_px=ticket.latent_height * LATENT_STRIDE_PX,
        fps=ticket.fps,
        quality=ticket.quality,
    )


def _codecs_of(ticket: OpenTicket) -> str:
    encoder = _open_encoder(ticket)
    codecs = encoder.codecs
    encoder.close()
    return codecs


def _tie_to_parent() -> None:
    """Die with the front, and leave Ctrl-C to it (spec, operations 1.4)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_in_background(connection: Connection) -> "queue.SimpleQueue[Any]":
    """Queue what the front sends; when the front is gone, so is this process, whatever the main thread does."""
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        while True:
            try:
                inbox.put(connection.recv())
            except (EOFError, OSError):
                os._exit(1)

    threading.Thread(target=read, name="front-reader", daemon=True).start()
    return inbox


def _take(inbox: "queue.SimpleQueue[Any]", *, wait: bool) -> list[Any]:
    """Everything that waits in the inbox; with ``wait``, at least one message."""
    messages = [inbox.get()] if wait else []
    while not inbox.empty():
        messages.append(inbox.get_nowait())
    return messages


def _open_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise StartError(f"device {name} was asked for, but torch finds no CUDA device; use --devices cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise StartError(f"device {name} does not exist; this machine has {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(device)
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
