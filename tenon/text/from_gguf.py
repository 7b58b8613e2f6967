"""The tokenizer of a GGUF file, from its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenon.errors import ModelFileError
from tenon.text import ggml_vocab
from tenon.text.tokenizer import Tokenizer

# Files often name one end token while their model also ends turns with another of these.
_END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<EOT>",
    "<turn|>",  # Gemma 4, also after calls of tools:
    "<|tool_response>",
)


def from_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """Raises UnsupportedModel (a kind of tokenizer not known) or ModelFileError (malformed metadata)."""
    vocabulary = ggml_vocab.build(metadata)
    size = vocabulary.tokenizer.get_vocab_size()
    eos = [
        token
        for key in ("eos_token_id", "eot_token_id", "eom_token_id")
        if (token := _token_id(metadata, key, size)) is not None
    ]
    named = (vocabulary.tokenizer.token_to_id(text) for text in _END_TOKENS)
    eos += [token for token in named if token in vocabulary.special_ids]
    return Tokenizer(
        vocabulary.tokenizer,
        bos_token_id=_token_id(metadata, "bos_token_id", size),
        eos_token_ids=eos,
        add_bos=vocabulary.add_bos,
        add_eos=vocabulary.add_eos,
        special_ids=vocabulary.special_ids,
        chat_templates=_chat_templates(metadata),
    )


def _token_id(metadata: Mapping[str, Any], key: str, size: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
        raise ModelFileError(f"tokenizer.ggml.{key} is {value!r}, not the id of one of {size} tokens")
    return value


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    templates = {}
    for key in metadata:  # values are decoded when they are asked for
        if key == "tokenizer.chat_template":
            templates["default"] = metadata[key]
        elif key.startswith("tokenizer.chat_template."):
            templates[key.rpartition(".")[2]] = metadata[key]
    if not all(isinstance(template, str) for template in templates.values()):
        raise ModelFileError("tokenizer.chat_template must be a string")
    return templates
