"""The small model's tokenizer: every word of the world is one token, any other text falls apart into bytes.

Lower case throughout, so that a word is the same token wherever it stands. Knows no network.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from engine.model.text import END_OF_TEXT, clean
from training.captions import corpus
from training.forward import PADDING

SPECIAL_TOKENS = ("<pad>", END_OF_TEXT, "<unk>")
assert SPECIAL_TOKENS[PADDING] == "<pad>"
NUM_SENTENCES = 5_000
VOCABULARY_LIMIT = 4096
"""Never reached: training ends when every word is whole."""


def world_tokenizer(seed: int, num_sentences: int = NUM_SENTENCES) -> Tokenizer:
    """The tokenizer of the world's captions; the same seed gives the same tokens."""
    return train_tokenizer(corpus(num_sentences, seed))


def train_tokenizer(sentences: Iterable[str]) -> Tokenizer:
    """Byte pairs merged until every word of the sentences is one token; ids 0..2 are padding, end and unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_LIMIT,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(sentences), trainer)
    return tokenizer


def token_ids(tokenizer: Tokenizer, prompts: Sequence[str], text_len: int) -> torch.Tensor:
    """Ids as the product's text encoder makes them, filled up to the longest prompt: int64 [B, T]."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    rows = [tokenizer.encode(clean(prompt), add_special_tokens=False).ids[: text_len - 1] for prompt in prompts]
    longest = max(map(len, rows)) + 1
    return torch.tensor([[*row, end, *[PADDING] * (longest - 1 - len(row))] for row in rows])


def save_tokenizer(tokenizer: Tokenizer, file: Path) -> None:
    """Write it as the product reads it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(file))
