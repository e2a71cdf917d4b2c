"""From a prompt to its embedding: cleaning, tokens, UMT5 encoder (spec section 5.5).

The encoder is ``transformers``' own class; this file adds what Wan does around it. Knows no video.

Letters: T tokens of a prompt, X text width.
"""

import html
import re
from pathlib import Path

import ftfy
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from engine.config import TextConfig
from engine.errors import StartError
from engine.model.names import text_names
from engine.model.reading import OnRead
from engine.model.weights import load_strictly, read_named
from engine.weight_files import tokenizer_file

END_OF_TEXT = "</s>"


def clean(prompt: str) -> str:
    """Repair broken Unicode, resolve HTML entities twice, and collapse white space; case stays."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", repaired).strip()


class TextEncoder:
    """Tokenizer and encoder of one model."""

    def __init__(self, config: TextConfig, encoder: UMT5EncoderModel, tokenizer: Tokenizer) -> None:
        self._config, self._encoder, self._tokenizer = config, encoder, tokenizer
        end = tokenizer.token_to_id(END_OF_TEXT)
        if end is None:
            raise StartError(f"the tokenizer has no {END_OF_TEXT} token")
        self._end = int(end)

    @property
    def module(self) -> nn.Module:
        """The network."""
        module: nn.Module = self._encoder
        return module

    def tokens(self, prompt: str) -> list[int]:
        """Token ids of a cleaned prompt, cut to ``text_len``, closed by the end token."""
        ids = self._tokenizer.encode(clean(prompt), add_special_tokens=False).ids
        return [*ids[: self._config.text_len - 1], self._end]

    def embed(self, prompt: str) -> Tensor:
        """The prompt's valid rows [T, X]; padding to ``text_len`` would be zero and is left out."""
        return self.embed_tokens(torch.tensor(self.tokens(prompt)))

    def embed_tokens(self, ids_T: Tensor) -> Tensor:
        """The encoder's output for token ids without padding [T, X].

        Running at the true length gives the same rows as padding and masking would.
        """
        with torch.inference_mode():
            output = self._encoder(input_ids=ids_T[None].to(self._encoder.device))
        embedding: Tensor = output.last_hidden_state[0]
        return embedding


def load_text_encoder(
    config: TextConfig,
    weights: Path,
    tokenizer: Path,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    on_read: OnRead | None = None,
) -> TextEncoder:
    """Tokenizer and encoder with their weights. Raises ``WeightsError`` or ``StartError``."""
    encoder = load_encoder(config, weights, device, dtype, on_read=on_read)
    return TextEncoder(config, encoder, load_tokenizer(tokenizer))


def load_encoder(
    config: TextConfig, path: Path, device: torch.device, dtype: torch.dtype, *, on_read: OnRead | None = None
) -> UMT5EncoderModel:
    """The UMT5 encoder with its weights. Raises ``WeightsError``."""
    with torch.device("meta"):
        encoder = umt5_encoder(config)
    # Two modules share the embedding's parameter, and loading would break that: the largest tensor, in memory twice.
    encoder.encoder.embed_tokens = encoder.shared
    load_strictly(encoder, read_named(path, text_names), path, device=device, dtype=dtype, on_read=on_read)
    module: nn.Module = encoder
    module.eval().requires_grad_(False)
    return encoder


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``, or of a folder that holds one. Raises ``StartError``."""
    file = tokenizer_file(path)
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise StartError(f"tokenizer file {file} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def umt5_encoder(config: TextConfig) -> UMT5EncoderModel:
    """The encoder's network with weights as torch initialises them."""
    umt5 = UMT5Config(
        vocab_size=config.vocab_size,
        d_model=config.dim,
        d_kv=config.dim_attn // config.num_heads,
        d_ff=config.dim_ffn,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        relative_attention_num_buckets=config.num_buckets,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        feed_forward_proj="gated-gelu",
    )
    return UMT5EncoderModel(umt5)
