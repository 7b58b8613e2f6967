"""The tokenizer of a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from tenon.errors import ModelFileError
from tenon.text import ggml_vocab, sentence_piece
from tenon.text.tokenizer import Tokenizer


def from_directory(directory: Path) -> Tokenizer:
    """From tokenizer.json or a SentencePiece `tokenizer.model`. Raises ModelFileError when neither does."""
    config = _json(directory / "tokenizer_config.json")
    if (path := directory / "tokenizer.json").is_file():
        fast = _fast(path)
        special_ids = None
    elif (path := directory / "tokenizer.model").is_file():
        vocabulary = ggml_vocab.build(sentence_piece.read(path))
        fast, special_ids = vocabulary.tokenizer, vocabulary.special_ids
        config.setdefault("add_bos_token", True)
    else:
        raise ModelFileError(
            f"{directory} has no tokenizer.json and no tokenizer.model; name one with --tokenizer"
        )
    return Tokenizer(
        fast,
        bos_token_id=_token_id(fast, config.get("bos_token")),
        eos_token_ids=_eos_token_ids(fast, directory, config),
        add_bos=_ends(config, "add_bos_token"),
        add_eos=_ends(config, "add_eos_token"),
        special_ids=special_ids,
        chat_templates=_chat_templates(directory, config),
    )


def _fast(path: Path) -> FastTokenizer:
    try:
        fast = FastTokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises plain Exception for whatever is wrong
        raise ModelFileError(f"{path}: not a tokenizer that can be read: {error}") from error
    fast.no_truncation()
    fast.no_padding()
    return fast


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: must hold a JSON object")
    return value


def _token_id(fast: FastTokenizer, token: object) -> int | None:
    """Id of a token written as its text or as an object with `content`."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return fast.token_to_id(text) if isinstance(text, str) else None


def _eos_token_ids(fast: FastTokenizer, directory: Path, config: Mapping[str, Any]) -> list[int]:
    """The tokenizer's own, then those the model generates (generation_config.json, else config.json)."""
    own = _token_id(fast, config.get("eos_token"))
    ids = [] if own is None else [own]
    for name in ("generation_config.json", "config.json"):
        value = _json(directory / name).get("eos_token_id")
        if value is None:
            continue
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(token, int) and not isinstance(token, bool) for token in listed):
            raise ModelFileError(
                f"{directory / name}: eos_token_id must be an id or a list of ids, not {value!r}"
            )
        return ids + listed
    return ids


def _ends(config: Mapping[str, Any], key: str) -> bool | None:
    """`add_bos_token`/`add_eos_token` where the file decides, None where the vocabulary's own rules do."""
    value = config.get(key)
    return value if isinstance(value, bool) else None


def _chat_templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name: those of tokenizer_config.json, under those of `*.jinja` files."""
    listed = config.get("chat_template") or _json(directory / "chat_template.json").get("chat_template") or {}
    if isinstance(listed, str):
        listed = {"default": listed}
    elif isinstance(listed, list):
        try:
            listed = {entry["name"]: entry["template"] for entry in listed}
        except (TypeError, KeyError) as error:
            raise ModelFileError(f"{directory}/tokenizer_config.json: chat_template is malformed") from error
    templates = dict(listed)
    for path in sorted((directory / "chat_templates").glob("*.jinja")):
        templates[path.stem] = path.read_text("utf-8")
    if (path := directory / "chat_template.jinja").is_file():
        templates["default"] = path.read_text("utf-8")
    return templates
