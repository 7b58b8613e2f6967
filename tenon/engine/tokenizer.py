"""The tokenizer that goes with a configuration: all that the front end process needs of a model."""

from __future__ import annotations

from tenon.config import EngineConfig
from tenon.core.spec import ModelSpec
from tenon.grammar.vocabulary import Vocabulary, of_tokenizer
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
    return of_tokenizer(load_tokenizer_for(config), spec.vocab_size, spec.eos_token_ids)
