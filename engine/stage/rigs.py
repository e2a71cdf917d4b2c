"""What a worker computes with: the real networks, sleeping twins of them, or the real ones with saved noise.

``rig_of`` chooses once, when the worker starts; nothing else in this package asks which it is. Knows no ticket.
"""

from typing import Protocol

import torch

from engine.engine_config import EngineConfig, Fault, Rehearsal
from engine.errors import StartError
from engine.law.placement import DecoderPart, PassCosts
from engine.law.schedule import passes_of_block
from engine.law.sizes import DecoderUnit, decoder_units
from engine.model.decoder import Decoder
from engine.model.encoder import Encoder, load_encoder
from engine.model.vae import WanVae
from engine.stage import build, costs
from engine.stage.build import Prompts, RecordedPrompt
from engine.stage.network import Network
from engine.stage.noise import KeyedNoise, Noise, RecordedNoise
from engine.stage.progress import Progress
from engine.stage.rehearsal import RehearsedDecoder, RehearsedModel, RehearsedPart, RehearsedPrompt


class Rig(Protocol):
    """Makes what a worker needs, on the device that it names. Nothing is made twice."""

    @property
    def page_layers(self) -> int:
        """Layers of the keys and values in a page."""
        ...

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Failures ordered of the worker."""
        ...

    def network(self, device: torch.device, progress: Progress) -> Network:
        """The network of the denoise stages, without graphs.

        Raises:
            WeightsError: the file does not fit the model.
            StartError: memory runs out, or the device cannot do what the config asks for.
        """
        ...

    def decoder(self, device: torch.device, progress: Progress) -> Decoder | None:
        """The network of the decode stage; None for a model that stops at latents. Raises as ``network``."""
        ...

    @property
    def decoder_units(self) -> tuple[DecoderUnit, ...]:
        """Between which the decoder may be cut."""
        ...

    def part_of(self, decoder: Decoder, part: DecoderPart) -> Decoder:
        """Some adjacent units of the decoder."""
        ...

    def prompts(self, device: torch.device, progress: Progress) -> Prompts | None:
        """Where prompt embeddings come from; None for a model without text. Raises as ``network``."""
        ...

    def encoder(self, device: torch.device, progress: Progress) -> Encoder | None:
        """What turns pictures into latents; None for a model that starts from none. Raises as ``network``."""
        ...

    def noise(self, device: torch.device) -> Noise:
        """Where noise comes from."""
        ...

    def costs(self, device: torch.device, network: Network, decoder: Decoder | None, progress: Progress) -> PassCosts:
        """Seconds that the passes of one block take through 1 .. S stages, and its decoding."""
        ...


class Real:
    """The model's own networks and keyed noise."""

    faults: tuple[Fault, ...] = ()

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    @property
    def page_layers(self) -> int:
        """As many as the transformer has."""
        return self._config.manifest.transformer.num_layers

    def network(self, device: torch.device, progress: Progress) -> Network:
        """The transformer; see ``Rig``."""
        return build.transformer(self._config, device, progress)

    def decoder(self, device: torch.device, progress: Progress) -> Decoder | None:
        """The model's decoder; see ``Rig``."""
        return build.decoder(self._config, device, progress)

    @property
    def decoder_units(self) -> tuple[DecoderUnit, ...]:
        """Those of the model's decoder."""
        decoder = self._config.manifest.decoder
        return () if decoder is None else decoder_units(decoder)

    def part_of(self, decoder: Decoder, part: DecoderPart) -> Decoder:
        """With the weights of those units alone."""
        assert isinstance(decoder, WanVae), "no other decoder has units"
        return decoder.part(part.begin, part.end)

    def prompts(self, device: torch.device, progress: Progress) -> Prompts | None:
        """The text encoder; see ``Rig``."""
        return build.prompts(self._config, device, progress)

    def encoder(self, device: torch.device, progress: Progress) -> Encoder | None:
        """The model's picture encoder; see ``Rig``."""
        manifest = self._config.manifest
        if manifest.encoder is None or manifest.encoder_file is None:
            return None
        return load_encoder(manifest.encoder, manifest.encoder_file, device, on_read=progress.reading)

    def noise(self, device: torch.device) -> Noise:
        """Noise keyed by seed, block and stage."""
        return KeyedNoise(device)

    def costs(self, device: torch.device, network: Network, decoder: Decoder | None, progress: Progress) -> PassCosts:
        """Measured; takes seconds."""
        return costs.measure(self._config, device, network, decoder, progress)


class Replayed(Real):
    """The model's own networks, with the noise and the prompt embedding of ``recording_file`` (parity runs)."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        assert config.recording_file is not None, "there is nothing to replay"
        self._file = config.recording_file

    def prompts(self, device: torch.device, progress: Progress) -> Prompts | None:
        """The saved embeddings: a prompt is the name of one."""
        return RecordedPrompt(self._file)

    def noise(self, device: torch.device) -> Noise:
        """The saved noise, whatever the seed is."""
        return RecordedNoise(self._file, self._config.manifest.rollout, device, self._config.recording_first_frame)


class Rehearsed:
    """Twins that sleep in place of computing, and failures on order. Reads no weights."""

    page_layers = 1

    def __init__(self, config: EngineConfig, rehearsal: Rehearsal) -> None:
        self._manifest, self._rehearsal = config.manifest, rehearsal

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those of the rehearsal."""
        return self._rehearsal.faults

    def network(self, device: torch.device, progress: Progress) -> Network:
        """Sleeps; a clean block holds its own number."""
        return RehearsedModel(self._manifest.transformer, self._rehearsal)

    def decoder(self, device: torch.device, progress: Progress) -> Decoder | None:
        """Sleeps; pictures show their frame numbers."""
        return RehearsedDecoder(self._rehearsal.decode_s)

    @property
    def decoder_units(self) -> tuple[DecoderUnit, ...]:
        """As many as the rehearsal says; each hands over the latents."""
        unit = DecoderUnit(layers=(), out_channels=self._manifest.transformer.in_dim, out_scale=1, out_frames=1)
        return (unit,) * self._rehearsal.num_decoder_units

    def part_of(self, decoder: Decoder, part: DecoderPart) -> Decoder:
        """Sleeps its share; the last one paints."""
        decode_s = self._rehearsal.decode_s * (part.end - part.begin) / part.num_units
        return RehearsedDecoder(decode_s) if part.is_last else RehearsedPart(decode_s)

    def prompts(self, device: torch.device, progress: Progress) -> Prompts | None:
        """One row of zeros, whatever the prompt says."""
        return RehearsedPrompt(self._manifest.transformer.text_dim)

    def encoder(self, device: torch.device, progress: Progress) -> Encoder | None:
        """None: a rehearsal shows no picture."""
        return None

    def noise(self, device: torch.device) -> Noise:
        """Noise keyed by seed, block and stage."""
        return KeyedNoise(device)

    def costs(self, device: torch.device, network: Network, decoder: Decoder | None, progress: Progress) -> PassCosts:
        """Known without measuring."""
        rollout, rehearsal = self._manifest.rollout, self._rehearsal
        passes = [passes_of_block(rollout, k) for k in range(1, rollout.num_stages + 1)]
        num_units = rehearsal.num_decoder_units
        return PassCosts(
            denoise_s=tuple(n * rehearsal.pass_s for n in passes),
            decode_s=rehearsal.decode_s,
            units_s=() if num_units == 1 else (rehearsal.decode_s / num_units,) * num_units,
        )


def rig_of(config: EngineConfig) -> Rig:
    """What the config asks for.

    Raises:
        StartError: it asks for a rehearsal and a replay at once.
    """
    if config.rehearsal is not None and config.recording_file is not None:
        raise StartError("a rehearsal computes nothing that saved noise could be replayed for")
    if config.rehearsal is not None:
        return Rehearsed(config, config.rehearsal)
    return Replayed(config) if config.recording_file is not None else Real(config)
