"""A small Unigram tokenizer with the special tokens of UMT5: it spells prompts letter by letter."""

import json
import string

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "\u2581"
"""How SentencePiece writes the space before a word."""


def tokenizer_json() -> str:
    """The content of a ``tokenizer.json``. Pad is token 0, end 1, unknown 2; all ids are below 128."""
    letters = string.ascii_letters + string.digits + string.punctuation
    scores = [*((token, 0.0) for token in (PAD, END, UNKNOWN)), *((letter, -2.0) for letter in SPACE + letters)]
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate((PAD, END, UNKNOWN))
    ]
    words = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": words,
        "post_processor": None,
        "decoder": words,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": scores, "byte_fallback": False},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
