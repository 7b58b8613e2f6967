"""The tokenizer that goes with a configuration: all that the front end process needs of a model."""

from __future__ import annotations

from functools import partial

from tenon.config import EngineConfig
from tenon.core.spec import ModelSpec
from tenon.grammar.vocabulary import Vocabulary
from tenon.text.load import load_tokenizer
from tenon.text.tokenizer import Tokenizer


def load_tokenizer_for(config: EngineConfig) -> Tokenizer:
    """The model's tokenizer or the one asked for, with the chat template asked for. Raises TenonError."""
    if config.load_format == "oracle":
        from tenon.engine import oracle

        tokenizer = oracle.tokenizer()
    else:
        from tenon.resolve import resolve

        tokenizer = load_tokenizer(resolve(config.tokenizer or config.model, config.revision))
    if config.chat_template is not None:
        from tenon.text.chat import load_template

        tokenizer.chat_templates["default"] = load_template(config.chat_template)
    return tokenizer


def load_vocabulary(config: EngineConfig, spec: ModelSpec) -> Vocabulary:
    """The model's tokens as grammars see them."""
    tokenizer = load_tokenizer_for(config)
    known = min(tokenizer.vocab_size, spec.vocab_size)
    return Vocabulary(
        [tokenizer.token_bytes(token) for token in range(known)] + [b""] * (spec.vocab_size - known),
        eos_ids=(t for t in (*spec.eos_token_ids, *tokenizer.eos_token_ids) if t < spec.vocab_size),
        special_ids=(token for token in tokenizer.special_ids if token < known),
        encode=partial(tokenizer.encode, add_special_tokens=False, parse_special=False),
    )
