"""How fast devices are taken to be before anything is measured: for a plan that is asked for on another machine.

Every number here is an estimate, none is this project's measurement. H100: attention 470 and products 680 TFLOP/s in
bfloat16 (``kernels`` spec section 2: other kernels of this kind); other GPUs by published ratios of their bfloat16
rates. Decoders: the Wan decoder takes 0.2 to 0.33 s for 12 frames of 832x480 on an H100, the tiny one about 9 ms
(public figures). A server measures its own passes at the start.
"""

from dataclasses import dataclass

from engine.config import DecoderConfig, DecoderKind
from engine.engine_config import EngineConfig
from engine.law.memory import most_tokens, weights_bytes
from engine.law.placement import PassCosts
from engine.law.schedule import VAE_TEMPORAL_STRIDE, frames_in_block, passes_of_block
from engine.law.sizes import decoder_units

GIB = 2**30
CPU_CORE_FLOPS = 25e9
CPU_BYTES_PER_S = 8e9
"""Of weights that a forward on a CPU reads from memory."""
DECODE_S_PER_PIXEL = {DecoderKind.WAN: 5.5e-8, DecoderKind.TINY: 2e-9}
"""On an H100."""
WARM_UP_BLOCKS = 2


@dataclass(frozen=True, kw_only=True)
class AssumedDevice:
    """A GPU that need not be there."""

    memory_bytes: int
    """What programs get of it."""
    capability: tuple[int, int]
    attention_flops: float
    product_flops: float


H100 = AssumedDevice(memory_bytes=int(79.1 * GIB), capability=(9, 0), attention_flops=470e12, product_flops=680e12)
ASSUMED = {
    "h100-80": H100,
    "h200": AssumedDevice(
        memory_bytes=int(139.8 * GIB), capability=(9, 0), attention_flops=470e12, product_flops=680e12
    ),
    "a100-80": AssumedDevice(
        memory_bytes=int(79.1 * GIB), capability=(8, 0), attention_flops=235e12, product_flops=300e12
    ),
    "l40s": AssumedDevice(
        memory_bytes=int(44.4 * GIB), capability=(8, 9), attention_flops=135e12, product_flops=190e12
    ),
    "rtx4090": AssumedDevice(
        memory_bytes=int(23.5 * GIB), capability=(8, 9), attention_flops=130e12, product_flops=160e12
    ),
    "rtx5090": AssumedDevice(
        memory_bytes=int(31.3 * GIB), capability=(12, 0), attention_flops=165e12, product_flops=205e12
    ),
}


def assumed_like(kind: str) -> AssumedDevice:
    """The device in the table that a name of a GPU stands for; an H100 where none does."""
    words = {"h200": "h200", "a100": "a100-80", "l40": "l40s", "4090": "rtx4090", "5090": "rtx5090"}
    return ASSUMED[next((name for word, name in words.items() if word in kind.lower()), "h100-80")]


def gpu_costs(config: EngineConfig, device: AssumedDevice) -> PassCosts:
    """What passes of one block at the default size would cost on such a GPU."""
    rollout, decoder = config.manifest.rollout, config.manifest.decoder
    products, attention = pass_flop(config, _default_tokens(config), rollout.window_blocks)
    pass_s = products / device.product_flops + attention / device.attention_flops
    denoise_s = _by_stages(config, pass_s)
    if decoder is None:
        return PassCosts(denoise_s=denoise_s, decode_s=0.0)
    slowness = H100.product_flops / device.product_flops
    decode_s = _decoded_pixels(config) * DECODE_S_PER_PIXEL[decoder.kind] * slowness
    return PassCosts(denoise_s=denoise_s, decode_s=decode_s, units_s=_by_units(config, decoder, decode_s))


def cpu_costs(config: EngineConfig, num_cores: int) -> PassCosts:
    """What passes of one block at the default size would cost on so many cores of a CPU; decoding is left out."""
    return PassCosts(
        denoise_s=_by_stages(config, _cpu_pass_s(config, num_cores, config.manifest.rollout.window_blocks)),
        decode_s=0.0,
    )


def cpu_start_s(config: EngineConfig, num_cores: int) -> float:
    """Seconds that measuring one forward and warming up take on a CPU; reading files comes on top."""
    rollout = config.manifest.rollout
    measuring_s = 2 * _cpu_pass_s(config, num_cores, rollout.window_blocks)
    passes = [_cpu_pass_s(config, num_cores, window + 1) for window in range(WARM_UP_BLOCKS)]
    return measuring_s + passes_of_block(rollout, rollout.num_stages) * sum(passes)


def pass_flop(config: EngineConfig, num_tokens: int, window_blocks: int) -> tuple[float, float]:
    """Operations of one pass: of products with weights, and of attention over a window (spec section 1.5)."""
    sizes = config.manifest.transformer
    products = 2.0 * num_tokens * sizes.dim * (6 * sizes.dim + 2 * sizes.ffn_dim)
    attention = 4.0 * num_tokens * (window_blocks * num_tokens + sizes.text_len) * sizes.dim
    return sizes.num_layers * products, sizes.num_layers * attention


def frames_per_block(config: EngineConfig) -> int:
    """Frames that a block of a running video shows."""
    return frames_in_block(config.manifest.rollout, 1)


def _cpu_pass_s(config: EngineConfig, num_cores: int, window_blocks: int) -> float:
    """A small block still reads all weights."""
    flop = sum(pass_flop(config, _default_tokens(config), window_blocks))
    return flop / (CPU_CORE_FLOPS * num_cores) + weights_bytes(config) / CPU_BYTES_PER_S


def _by_stages(config: EngineConfig, pass_s: float) -> tuple[float, ...]:
    rollout = config.manifest.rollout
    return tuple(passes_of_block(rollout, count) * pass_s for count in range(1, rollout.num_stages + 1))


def _by_units(config: EngineConfig, decoder: DecoderConfig, decode_s: float) -> tuple[float, ...]:
    """By arithmetic: measured, units of high resolution take up to twice their share (``vae`` spec section 6)."""
    units, size_px = decoder_units(decoder), config.manifest.video.sizes[0]
    if len(units) == 1:
        return ()
    works = [unit.num_products(size_px) * unit.out_frames for unit in units]
    return tuple(decode_s * work / sum(works) for work in works)


def _default_tokens(config: EngineConfig) -> int:
    sizes = config.manifest.video.sizes
    most = max(width_px * height_px for width_px, height_px in sizes)
    return most_tokens(config) * sizes[0][0] * sizes[0][1] // most


def _decoded_pixels(config: EngineConfig) -> int:
    width_px, height_px = config.manifest.video.sizes[0]
    return VAE_TEMPORAL_STRIDE * config.manifest.rollout.latent_frames_per_block * width_px * height_px
