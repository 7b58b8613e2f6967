"""The tokenizer of a Hugging Face directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from tenon.errors import ModelFileError
from tenon.formats import small
from tenon.text import ggml_vocab, native, sentence_piece, tokenizer_json
from tenon.text.tokenizer import Tokenizer

MAX_TOKENIZER_BYTES = 40 << 20  # the largest real ones have 35 MB
MAX_TEMPLATE_BYTES = 1 << 20
MAX_TEMPLATES = 64


def from_directory(directory: Path) -> Tokenizer:
    """From tokenizer.json or a SentencePiece `tokenizer.model`. Raises ModelFileError when neither does."""
    config = _object(directory / "tokenizer_config.json")
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
    tokenizer = Tokenizer(
        fast,
        bos_token_id=_token_id(fast, config.get("bos_token")),
        eos_token_ids=_eos_token_ids(fast, directory, config),
        add_bos=_ends(config, "add_bos_token"),
        add_eos=_ends(config, "add_eos_token"),
        special_ids=special_ids,
        chat_templates=_chat_templates(directory, config),
    )
    with native.errors_as(lambda reason: ModelFileError(f"{path}: it cannot encode text: {reason}")):
        tokenizer.encode("a \u00e9\U0001f642\n", add_special_tokens=False)
    return tokenizer


def _fast(path: Path) -> FastTokenizer:
    data = small.read(path, MAX_TOKENIZER_BYTES)
    if data is None:
        raise ModelFileError(f"{path}: it was there a moment ago")
    data = tokenizer_json.checked(path, data)
    with native.errors_as(
        lambda reason: ModelFileError(f"{path}: not a tokenizer that can be read: {reason}")
    ):
        fast = FastTokenizer.from_buffer(data)
        fast.no_truncation()
        fast.no_padding()
    return fast


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is no such file."""
    return small.read_object(path) or {}


def _token_id(fast: FastTokenizer, token: object) -> int | None:
    """Id of a token written as its text or as an object with `content`."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return fast.token_to_id(text) if isinstance(text, str) else None


def _eos_token_ids(fast: FastTokenizer, directory: Path, config: Mapping[str, Any]) -> list[int]:
    """The tokenizer's own, then those the model generates (generation_config.json, else config.json)."""
    own = _token_id(fast, config.get("eos_token"))
    ids = [] if own is None else [own]
    for name in ("generation_config.json", "config.json"):
        value = _object(directory / name).get("eos_token_id")
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
    listed = (
        config.get("chat_template") or _object(directory / "chat_template.json").get("chat_template") or {}
    )
    if isinstance(listed, str):
        listed = {"default": listed}
    elif isinstance(listed, list):
        try:
            listed = {entry["name"]: entry["template"] for entry in listed}
        except (TypeError, KeyError) as error:
            raise ModelFileError(f"{directory}/tokenizer_config.json: chat_template is malformed") from error
    if not isinstance(listed, dict) or not all(isinstance(text, str) for text in listed.values()):
        raise ModelFileError(
            f"{directory}/tokenizer_config.json: chat_template must be text, or texts by name"
        )
    templates = dict(listed)
    paths = sorted((directory / "chat_templates").glob("*.jinja"))
    if len(paths) > MAX_TEMPLATES:
        raise ModelFileError(f"{directory}/chat_templates: {len(paths)} templates; at most {MAX_TEMPLATES}")
    for name, path in [*((p.stem, p) for p in paths), ("default", directory / "chat_template.jinja")]:
        text = small.read_text(path, MAX_TEMPLATE_BYTES)
        if text is not None:
            templates[name] = text
    return templates
