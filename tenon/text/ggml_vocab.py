"""Builds a `tokenizers.Tokenizer` from the vocabulary in a GGUF file's metadata (`tokenizer.ggml.*`).

Three kinds are known: `gpt2`, byte-level BPE with explicit merges; `llama`, SentencePiece BPE, whose merges
follow from the scores of its pieces; and `gemma4`, pieces like SentencePiece's with explicit merges. Key
names and token types are those of the GGUF specification. Building the 49,152 tokens and 48,900 merges
of SmolLM2 takes about 60 ms, so nothing is cached on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.text import charsmap, native
from tenon.text.pretokenize import pre_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # tokenizer.ggml.token_type
# Finding what makes a piece takes the square of its length. SentencePiece's own limit is 16 by default.
MAX_PIECE_CHARS = 512
_ENDS_OF_GEMMA = ("<turn|>", "<|tool_response>")  # converters have written some of them as text
SPACE = "\u2581"  # what SentencePiece writes for a space


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as read from metadata, with what `tokenizers` does not keep."""

    tokenizer: Tokenizer
    add_bos: bool
    add_eos: bool
    special_ids: frozenset[int]


def build(metadata: Mapping[str, Any]) -> Vocabulary:
    """Raises UnsupportedModel (unknown kind or rule, named) or ModelFileError (malformed metadata)."""
    makers = {"gpt2": _byte_level, "llama": _sentence_piece, "gemma4": _merged_pieces}
    kind = metadata.get("tokenizer.ggml.model")
    make = makers.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise UnsupportedModel(
            f"tokenizer.ggml.model {kind!r} is not supported; known are {', '.join(map(repr, makers))}"
        )
    tokens = _tokens(metadata)
    types = _types(metadata, len(tokens))
    with native.errors_as(
        lambda reason: ModelFileError(f"tokenizer.ggml: no tokenizer can be made: {reason}")
    ):
        return make(metadata, tokens, types)


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], types: Sequence[int]) -> Vocabulary:
    rule = pre_tokenizer(metadata.get("tokenizer.ggml.pre", "default"))
    tokenizer = Tokenizer(_bpe(tokens, _merges(metadata), ignore_merges=rule.ignore_merges))
    if rule.normalizer is not None:
        tokenizer.normalizer = rule.normalizer
    tokenizer.pre_tokenizer = rule.splitter
    tokenizer.decoder = decoders.ByteLevel()
    special = _add_tokens(tokenizer, tokens, types)
    return Vocabulary(
        tokenizer,
        add_bos=_flag(metadata, "tokenizer.ggml.add_bos_token", rule.add_bos),
        add_eos=_flag(metadata, "tokenizer.ggml.add_eos_token", False),
        special_ids=special,
    )


def _sentence_piece(metadata: Mapping[str, Any], tokens: list[str], types: Sequence[int]) -> Vocabulary:
    scores = _numbers(metadata, "tokenizer.ggml.scores", {float, int}, len(tokens))
    if scores is None or any(map(math.isnan, scores)):
        raise ModelFileError(f"tokenizer.ggml.scores must hold one number per token ({len(tokens)})")
    if longest := [text for text in tokens if len(text) > MAX_PIECE_CHARS]:
        raise ModelFileError(f"tokenizer.ggml.tokens holds a piece of {len(longest[0])} characters")
    prefix = _flag(metadata, "tokenizer.ggml.add_space_prefix", True)
    unknown = next((text for text, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    tokenizer = Tokenizer(
        _bpe(
            tokens,
            merges_from_scores(tokens, scores, types),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=BYTE in types,
        )
    )
    tokenizer.normalizer = _normalizer(metadata, prefix)
    tokenizer.decoder = _piece_decoder(prefix)
    special = _add_tokens(tokenizer, tokens, types)
    return Vocabulary(
        tokenizer,
        add_bos=_flag(metadata, "tokenizer.ggml.add_bos_token", True),
        add_eos=_flag(metadata, "tokenizer.ggml.add_eos_token", False),
        special_ids=special,
    )


def _merged_pieces(metadata: Mapping[str, Any], tokens: list[str], types: Sequence[int]) -> Vocabulary:
    """As Gemma 4's tokenizer.json has it: spaces are escaped, and merges go over the whole text. What no
    piece has is written in bytes. Text begins with BOS whatever the file says: the first ones were wrong."""
    types = [CONTROL if text in _ENDS_OF_GEMMA else kind for text, kind in zip(tokens, types, strict=True)]
    tokenizer = Tokenizer(_bpe(tokens, _merges(metadata), byte_fallback=BYTE in types))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = _piece_decoder(prefix=False)
    return Vocabulary(
        tokenizer,
        add_bos=True,
        add_eos=_flag(metadata, "tokenizer.ggml.add_eos_token", False),
        special_ids=_add_tokens(tokenizer, tokens, types),
    )


def _normalizer(metadata: Mapping[str, Any], prefix: bool) -> normalizers.Normalizer:
    """SentencePiece's order: character map, whitespace collapsed, dummy prefix, spaces escaped."""
    steps: list[normalizers.Normalizer] = []
    if table := _charsmap(metadata):
        steps.append(normalizers.Precompiled(charsmap.check(table)))
    if _flag(metadata, "tokenizer.ggml.remove_extra_whitespaces", False):
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _charsmap(metadata: Mapping[str, Any]) -> bytes:
    """Signed or unsigned bytes, in GGUF files."""
    key = "tokenizer.ggml.precompiled_charsmap"
    value = metadata.get(key, b"")
    if isinstance(value, bytes):
        return value
    return bytes(byte & 0xFF for byte in _numbers(metadata, key, {int}) or ())


def _piece_decoder(prefix: bool) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def merges_from_scores(
    tokens: Sequence[str], scores: Iterable[float], types: Sequence[int]
) -> list[tuple[str, str]]:
    """Merge rules that make BPE do what SentencePiece does: join the neighbours whose piece scores highest.

    Every way to cut a piece into two pieces is a rule; rules rank as the piece they make (ties: lower id).
    """
    ids = {
        text: token
        for token, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (NORMAL, USER_DEFINED, UNUSED)
    }
    value = list(scores)
    merges: list[tuple[str, str]] = []
    for text in sorted(ids, key=lambda text: (-value[ids[text]], ids[text])):
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                merges.append((left, right))
    return merges


def _bpe(tokens: list[str], merges: list[tuple[str, str]], **options: Any) -> models.BPE:
    vocab = {text: token for token, text in enumerate(tokens)}
    if len(vocab) != len(tokens):
        seen: set[str] = set()
        twice = next(text for text in tokens if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise ModelFileError(f"tokenizer.ggml.tokens holds {twice!r} twice")
    try:
        return models.BPE(vocab=vocab, merges=merges, **options)
    except Exception as error:  # `tokenizers` raises plain Exception, e.g. for a merge of unknown tokens
        raise ModelFileError(f"tokenizer.ggml.merges does not fit tokenizer.ggml.tokens: {error}") from error


def _add_tokens(tokenizer: Tokenizer, tokens: list[str], types: Sequence[int]) -> frozenset[int]:
    """Registers what is matched in text before BPE sees it; returns the ids that are special (not text)."""
    special = [token for token, kind in enumerate(types) if kind in (CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens(
        [AddedToken(tokens[token], special=True, normalized=False) for token in special if tokens[token]]
    )
    tokenizer.add_tokens(
        [
            AddedToken(text, special=False, normalized=False)
            for text, kind in zip(tokens, types, strict=True)
            if kind == USER_DEFINED and text and SPACE not in text
        ]
    )
    return frozenset(special)


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    if not tokens:
        raise ModelFileError("tokenizer.ggml.tokens is missing or empty: the file has no vocabulary")
    return tokens


def _types(metadata: Mapping[str, Any], count: int) -> list[int]:
    return _numbers(metadata, "tokenizer.ggml.token_type", {int}, count) or [NORMAL] * count


def _numbers(
    metadata: Mapping[str, Any], key: str, kinds: set[type], count: int | None = None
) -> list[Any] | None:
    """A list of numbers, as many as `count`; None if it is not there."""
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not set(map(type, value)) <= kinds:
        raise ModelFileError(f"{key} must be a list of numbers")
    if count is not None and len(value) != count:
        raise ModelFileError(f"{key} holds {len(value)} entries for {count} tokens")
    return value


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key, [])
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise ModelFileError(f"{key} must be a list of strings")
    return value


def _merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Merges in order of rank; the file writes each as two tokens with a space between."""
    merges = [tuple(text.split(" ")) for text in _strings(metadata, "tokenizer.ggml.merges")]
    if wrong := [merge for merge in merges if len(merge) != 2]:
        raise ModelFileError(f"tokenizer.ggml.merges holds {' '.join(wrong[0])!r}: not two tokens")
    return cast("list[tuple[str, str]]", merges)


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise ModelFileError(f"{key} must be true or false, not {value!r}")
    return value
