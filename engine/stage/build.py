"""What a worker is built from: networks, pages, noise and prompts, loaded from a config onto one device.

Each function loads one thing and nothing is loaded twice; which of them a worker needs is decided by its placement.
Knows no ticket and no process.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.config import LATENT_STRIDE_PX
from engine.engine_config import EngineConfig, no_gpu, no_such_gpu
from engine.errors import StartError, StartOutOfMemory
from engine.law.forwards import largest_forward
from engine.law.sizes import DecoderUnit
from engine.law.window import pages_per_writer, writes_pages
from engine.machine import free_host_bytes, usable_cores
from engine.media.decode import Encoder
from engine.messages import OpenTicket
from engine.model.capture import Captures, cuda_graphs
from engine.model.decode_graph import GraphedDecoder, block_shapes
from engine.model.decoder import Decoder
from engine.model.dit import CausalWan
from engine.model.graphs import GraphedWan
from engine.model.weights import load_decoder, load_transformer
from engine.request import Quality
from engine.stage.network import Network
from engine.stage.pages import PagePool, page_bytes
from engine.stage.precision import objection_on
from engine.stage.progress import Progress
from kernels.attention.choice import UNTRIED, Choice, NoAttentionError, choose_attention, seconds_by_events
from kernels.attention.int8 import paged_attention_int8
from kernels.numbers import FP8

logger = logging.getLogger(__name__)


class Prompts(Protocol):
    """Where prompt embeddings come from."""

    @property
    def module(self) -> nn.Module | None:
        """The network behind them, if there is one."""
        ...

    def embed(self, prompt: str) -> Tensor:
        """The prompt's valid rows [num_tokens, text_dim]."""
        ...


class RecordedPrompt:
    """The embeddings of a recording: a prompt is the name of one, and any other text means ``context``."""

    module = None

    def __init__(self, path: Path) -> None:
        self._tensors = load_file(path)

    def embed(self, prompt: str) -> Tensor:
        """The recorded rows [num_tokens, text_dim]."""
        padded_TX = self._tensors.get(prompt, self._tensors["context"])
        num_tokens = int(padded_TX.any(dim=1).nonzero().max()) + 1
        return padded_TX[:num_tokens]


def open_device(name: str) -> torch.device:
    """The device, made current. Raises ``StartError`` when it is not there."""
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise StartError(no_gpu(name))
        if (device.index or 0) >= torch.cuda.device_count():
            raise StartError(no_such_gpu(name, torch.cuda.device_count()))
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """What people call the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def set_num_threads(config: EngineConfig) -> None:
    """Take the asked number of CPU threads, or a fair share of the cores among several CPU workers."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    elif not config.on_gpu and len(config.devices) > 1:
        torch.set_num_threads(max(1, usable_cores() // len(config.devices)))


def dtype_on(config: EngineConfig, device: torch.device) -> torch.dtype:
    """Type of weights and activations."""
    dtype = getattr(torch, config.dtype_name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def page_dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    """Type of pages."""
    return FP8 if config.precision.fp8_pages else dtype_on(config, device)


def captures_on(device: torch.device) -> Captures | None:
    """What captures the work of a device; None where there are no graphs."""
    return cuda_graphs(device) if device.type == "cuda" else None


def transformer(config: EngineConfig, device: torch.device, progress: Progress) -> Network:
    """The network of the denoise stages.

    Raises:
        WeightsError: a file does not fit the model.
        StartError: memory runs out, or the device cannot do what ``config.precision`` asks for.
    """
    manifest, dtype = config.manifest, dtype_on(config, device)
    unfit = objection_on(device, config.precision, manifest.transformer, dtype)
    if unfit is not None:
        raise StartError(f"{device}: {unfit}")
    with _room_for("the transformer", config, device):
        model = load_transformer(
            manifest.transformer,
            manifest.transformer_file,
            device,
            dtype,
            key=manifest.transformer_key,
            loras=manifest.loras,
            on_read=progress.reading,
        )
        if config.precision.fp8_linears:
            model.use_fp8_linears()
    if config.precision.int8_attention:
        model.attention = paged_attention_int8
    return model


def replayed(
    config: EngineConfig,
    model: Network,
    attention: Choice,
    stages: tuple[int, ...],
    captures: Captures | None,
) -> Network:
    """The network as a worker with these stages runs it: by graphs, where there are any."""
    if captures is None or not isinstance(model, CausalWan):
        return model
    rollout = config.manifest.rollout
    return GraphedWan(
        model,
        window_pages=rollout.window_blocks - 1,
        max_segments=largest_forward(rollout, stages, config.segments_limit, config.max_videos),
        captures=captures,
        attention=attention,
    )


def attention_name(model: Network | None) -> str:
    """How the network attends to pages, for people."""
    if isinstance(model, GraphedWan):
        return model.attention.name
    is_int8 = isinstance(model, CausalWan) and model.attention is paged_attention_int8
    return "torch-int8" if is_int8 else "torch-sdpa"


def decoder(config: EngineConfig, device: torch.device, progress: Progress) -> Decoder | None:
    """The network of the decode stage; None for a model that stops at latents. Raises as ``transformer``."""
    manifest = config.manifest
    if manifest.decoder is None or manifest.decoder_file is None:
        return None
    with _room_for("the decoder", config, device):
        return load_decoder(
            manifest.decoder, manifest.decoder_file, device, dtype_on(config, device), on_read=progress.reading
        )


def replayed_decoder(
    config: EngineConfig,
    network: Decoder | None,
    device: torch.device,
    captures: Captures | None,
    before: DecoderUnit | None,
) -> Decoder | None:
    """The decoder, or its part behind unit ``before``, as a worker runs it: by graphs, where there are any and it has
    something to capture.
    """
    if captures is None or not isinstance(network, nn.Module):
        return network
    shapes, dtype = block_shapes(config.manifest), torch.float32
    if before is not None:
        shapes = tuple(before.out_shape(shape[0], (shape[2], shape[3]), is_first=False) for shape in shapes)
        dtype = dtype_on(config, device)
    return GraphedDecoder(network, shapes, device, captures, dtype)


def prompts(config: EngineConfig, device: torch.device, progress: Progress) -> Prompts | None:
    """The text encoder, on this device; None for a model without one. Raises as ``transformer``."""
    manifest = config.manifest
    if manifest.text is None or manifest.text_file is None or manifest.tokenizer_file is None:
        return None
    from engine.model.text import load_text_encoder  # noqa: PLC0415 - slow to import; not every worker has text

    files, dtype = (manifest.text_file, manifest.tokenizer_file), dtype_on(config, device)
    with _room_for("the text encoder", config, device):
        return load_text_encoder(manifest.text, *files, device, dtype, on_read=progress.reading)


@contextmanager
def _room_for(what: str, config: EngineConfig, device: torch.device) -> Iterator[None]:
    """Memory that runs out in the body is a ``StartOutOfMemory`` that names what did not fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        message = f"{device} has no room for {what} of {config.manifest.name}: {_first_line(error)}"
        raise StartOutOfMemory(message) from error


def pages(
    config: EngineConfig, device: torch.device, stages: tuple[int, ...], num_layers: int | None = None
) -> PagePool:
    """Pages for ``max_videos`` videos at full window in these stages.

    Args:
        config: model and settings.
        device: where they lie.
        stages: those of the worker.
        num_layers: of a page; None for those of the model.

    Raises:
        StartError: there is no room.
    """
    rollout = config.manifest.rollout
    writers = sum(writes_pages(rollout, stage) for stage in stages)
    return allocate_pages(config, device, config.max_videos * writers * pages_per_writer(rollout), num_layers)


def allocate_pages(
    config: EngineConfig, device: torch.device, num_pages: int, num_layers: int | None = None
) -> PagePool:
    """A pool for blocks of the largest size; ``num_layers`` as for ``pages``. Raises ``StartError`` without room."""
    sizes, dtype = config.manifest.transformer, page_dtype(config, device)
    tokens = max(_block_tokens(config, size_px) for size_px in config.manifest.video.sizes)
    num_layers = sizes.num_layers if num_layers is None else num_layers
    needed = num_pages * page_bytes(num_layers, tokens, sizes.num_heads, sizes.head_dim, dtype)
    free = free_bytes(device)
    if needed > free:
        raise StartOutOfMemory(
            f"{device} has {free / 1e9:.1f} GB of memory free and {num_pages} pages need {needed / 1e9:.1f} GB; "
            f"free some, or lower --max-videos (now {config.max_videos})"
        )
    return PagePool(
        num_pages=num_pages,
        num_layers=num_layers,
        page_tokens=tokens,
        num_heads=sizes.num_heads,
        head_dim=sizes.head_dim,
        dtype=dtype,
        device=device,
        poison=config.poison_pages,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated; on a CPU what the kernel and the control group allow."""
    if device.type != "cuda":
        return free_host_bytes()
    torch.cuda.empty_cache()  # what the allocator keeps for later would count as taken
    return torch.cuda.mem_get_info(device)[0]


def open_encoder(config: EngineConfig, ticket: OpenTicket) -> Encoder:
    """The encoder of a video, at the first block that is made: what it remembers is as if it had never stopped."""
    from engine.media.encoder import BlockEncoder  # noqa: PLC0415 - machines without PyAV run all but the encoder

    return BlockEncoder(
        width_px=ticket.latent_width * LATENT_STRIDE_PX,
        height_px=ticket.latent_height * LATENT_STRIDE_PX,
        fps=ticket.fps,
        quality=ticket.quality,
        first_frame=ticket.from_frame,
        first_sequence=ticket.first_sequence,
    )


def default_codecs(config: EngineConfig) -> str | None:
    """RFC 6381 string of the default size and quality; None for a model that stops at latents."""
    manifest = config.manifest
    if manifest.decoder is None:
        return None
    from engine.media.encoder import BlockEncoder  # noqa: PLC0415 - as above

    width_px, height_px = manifest.video.sizes[0]
    encoder = BlockEncoder(width_px=width_px, height_px=height_px, fps=manifest.video.fps, quality=Quality.STANDARD)
    codecs = encoder.codecs
    encoder.close()
    return codecs


def attention_on(config: EngineConfig, device: torch.device, known: tuple[str, ...]) -> Choice:
    """The fastest on a GPU for a forward of a cache and a denoise pass at the default size; other sizes use it too.

    Args:
        config: model and settings.
        device: where it runs.
        known: names of ways that passed on this device before, which alone are tried then; empty to try all.

    Raises:
        StartError: no attention works.
    """
    if device.type != "cuda":
        return UNTRIED
    sizes, num_pages = config.manifest.transformer, config.manifest.rollout.window_blocks - 1
    shape = (_block_tokens(config, config.manifest.video.sizes[0]), sizes.num_heads, sizes.head_dim, num_pages)
    try:
        choice = choose_attention(
            device,
            dtype_on(config, device),
            *shape,
            timed=seconds_by_events,
            known=known,
            fp8_pages=config.precision.fp8_pages,
            int8=config.precision.int8_attention,
        )
    except NoAttentionError as error:
        raise StartError(f"{device}: {error}") from error
    finally:
        torch.cuda.empty_cache()  # what the trial held would be missing where pages are counted
    logger.info("%s attends by %s (%s)", device, choice.name, "; ".join(map(str, choice.trials)))
    return choice


def _block_tokens(config: EngineConfig, size_px: tuple[int, int]) -> int:
    """Tokens of a block whose pictures have this size."""
    patch_px = LATENT_STRIDE_PX * config.manifest.transformer.patch_px
    return config.manifest.rollout.latent_frames_per_block * size_px[0] * size_px[1] // patch_px**2


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
