"""Text to token ids and back, whatever the vocabulary comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models

from tenon import env
from tenon.errors import InvalidRequest, UnsupportedModel
from tenon.text.ggml_vocab import SPACE
from tenon.text.pieces import ByteLetters, Pieces, SpacedPieces, WordPieces
from tenon.text.untrusted import Controls

env.tokenize_in_one_thread()

# The library keeps the tokens of the first so many words that it meets (10,000, if it is not told). Words of
# 256 letters take 8 KiB each there, so one who makes them up fills 16 MiB, not 80.
REMEMBERED_WORDS = 2048


class Tokenizer:
    """A vocabulary with its special tokens and chat template. Safe to share between threads.

    `chat_templates` maps names to Jinja sources; the usual one is called "default".
    """

    def __init__(
        self,
        fast: FastTokenizer,
        *,
        bos_token_id: int | None = None,
        eos_token_ids: Iterable[int] = (),
        add_bos: bool | None = None,
        add_eos: bool | None = None,
        special_ids: frozenset[int] | None = None,
        chat_templates: Mapping[str, str] | None = None,
    ) -> None:
        """`add_bos`/`add_eos` None: the vocabulary's own post-processor decides."""
        self._fast = _bounded(fast)
        self._pieces = _pieces_of(fast)
        self._added = {token: added.content for token, added in fast.get_added_tokens_decoder().items()}
        self._bytes: dict[int, bytes] = {}
        self._add_bos = add_bos
        self._add_eos = add_eos
        self.bos_token_id = bos_token_id
        self.eos_token_ids = tuple(dict.fromkeys(eos_token_ids))
        self.special_ids = special_ids if special_ids is not None else _special_ids(fast)
        self.vocab_size = max([fast.get_vocab_size(), *(token + 1 for token in self._added)])
        self.chat_templates = dict(chat_templates or {})

    @property
    def chat_template(self) -> str | None:
        return self.chat_templates.get("default")

    @property
    def bos_token(self) -> str | None:
        return None if self.bos_token_id is None else self._fast.id_to_token(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        return self._fast.id_to_token(self.eos_token_ids[0]) if self.eos_token_ids else None

    @property
    def strip_first_space(self) -> bool:
        """Whether a text's first space is the encoder's own (SentencePiece's dummy prefix)."""
        return self._pieces.strip_first_space

    def encode(self, text: str, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`, with BOS/EOS as the model wants them when `add_special_tokens`.

        With `parse_special` the strings of special tokens in the text become these tokens, as chat templates
        need; without, they are plain text, as untrusted text needs. Raises InvalidRequest for text that is
        not valid Unicode (lone surrogates).
        """
        fast = self._fast if parse_special else self._plain
        own = add_special_tokens and self._add_bos is None and self._add_eos is None
        try:
            # A batch of one: unlike `encode`, this leaves the interpreter's lock, and skips offsets, which
            # take half of the time.
            ids: list[int] = fast.encode_batch_fast([text], add_special_tokens=own)[0].ids
        except TypeError as error:
            raise InvalidRequest(f"text is not valid Unicode: {text[:40]!a}", "prompt") from error
        return self._with_ends(ids) if add_special_tokens and not own else ids

    def encode_marked(self, text: str, mark: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a prompt in which no control token is to be recognised across a mark (see
        `tenon.text.untrusted`); marks are no text."""
        if not mark or mark not in text:
            return self.encode(text, add_special_tokens)
        ids: list[int] = []
        for part in text.split(mark):
            ids += self._continued(part) if ids else self.encode(part, False)
        if not add_special_tokens:
            return ids
        bare, whole = self.encode("x", False), self.encode("x", True)
        at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return [*whole[:at], *ids, *whole[at + len(bare) :]]

    def _continued(self, text: str) -> list[int]:
        """Token ids of a text that follows another: some vocabularies put a space in front of one that does
        not."""
        parse = len(text) > 1 or text not in self.controls.texts  # a single letter cannot be cut
        for before in ("\n", "0") if self.strip_first_space else ():
            ids, first = self.encode(before + text, False, parse), self.encode(before, False)
            if ids[: len(first)] == first:
                return ids[len(first) :]
        return self.encode(text, False, parse)

    @cached_property
    def controls(self) -> Controls:
        """The special tokens as texts, which only chat templates may make into tokens."""
        return Controls(self.token_text(token) for token in self.special_ids)

    def encode_input(
        self,
        text: str,
        second: str | None = None,
        *,
        limit: int | None = None,
        add_special_tokens: bool = True,
    ) -> tuple[list[int], list[int]]:
        """Token ids of a text, or of two as the model was trained to see a pair; and which text each is of.

        At most `limit` tokens: the ends of the texts are cut, that of the longer one first; special tokens
        stay. Raises InvalidRequest for text that is not valid Unicode.
        """
        own = self._add_bos is None and self._add_eos is None
        try:
            encodings = [
                self._fast.encode_batch_fast([t], add_special_tokens=False)[0]  # as in `encode`
                for t in (text, second)
                if t is not None
            ]
        except TypeError as error:
            raise InvalidRequest(f"text is not valid Unicode: {text[:40]!a}", "prompt") from error
        if limit is not None:
            pair = second is not None
            ends = self._fast.num_special_tokens_to_add(pair) if own else len(self._with_ends([]))
            room = max(0, limit - ends * add_special_tokens)
            for encoding, length in zip(encodings, _shares([len(e) for e in encodings], room), strict=True):
                encoding.truncate(length)
        first, other = encodings if len(encodings) == 2 else (encodings[0], None)
        whole = self._fast.post_process(first, other, add_special_tokens and own)
        ids, types = whole.ids, whole.type_ids
        if add_special_tokens and not own:
            ids = self._with_ends(ids)
            types = []
        return ids, types if any(types) else []

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD, unknown ids nothing."""
        skip = self.special_ids if skip_special_tokens else frozenset()
        data = b"".join([self.token_bytes(token) for token in ids if token not in skip])
        if self.strip_first_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """What a token adds to the text; nothing for an id outside the vocabulary."""
        data = self._bytes.get(token)
        if data is None:
            data = self._bytes[token] = self._spell(token)
        return data

    def token_text(self, token: int) -> str:
        """A token alone, for people; part of a character shows as U+FFFD."""
        return self.token_bytes(token).decode("utf-8", "replace")

    def token_to_id(self, token: str) -> int | None:
        """Id of a token as the vocabulary spells it, such as `<|im_end|>`."""
        return self._fast.token_to_id(token)

    def save(self, path: Path) -> None:
        """Write tokenizer.json, without the beginning and end tokens that only `encode` adds."""
        self._fast.save(str(path))

    def _spell(self, token: int) -> bytes:
        if (added := self._added.get(token)) is not None:
            return added.encode()
        text = self._fast.id_to_token(token) if 0 <= token < self.vocab_size else None
        return b"" if text is None else self._pieces.to_bytes(text)

    def _with_ends(self, ids: list[int]) -> list[int]:
        if self._add_bos and self.bos_token_id is not None:
            ids = [self.bos_token_id, *ids]
        if self._add_eos and self.eos_token_ids:
            ids = [*ids, self.eos_token_ids[0]]
        return ids

    @cached_property
    def _plain(self) -> FastTokenizer:
        """The same vocabulary, blind to special tokens. Made when asked for: it takes as long as loading."""
        plain = _bounded(FastTokenizer.from_str(self._fast.to_str()))
        plain.encode_special_tokens = True
        return plain


def _bounded(fast: FastTokenizer) -> FastTokenizer:
    """The same, with a small memory for words. Other kinds than these have none."""
    if isinstance(fast.model, models.BPE | models.Unigram):
        fast.model._resize_cache(REMEMBERED_WORDS)
    return fast


def _shares(lengths: list[int], room: int) -> list[int]:
    """How much of each text stays when all must fit into `room`: the longest is cut first."""
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    short = min(lengths)
    shares = [short, room - short] if 2 * short <= room else [room // 2, room - room // 2]
    return shares if lengths[0] <= lengths[1] else shares[::-1]


def _special_ids(fast: FastTokenizer) -> frozenset[int]:
    return frozenset(token for token, added in fast.get_added_tokens_decoder().items() if added.special)


def _pieces_of(fast: FastTokenizer) -> Pieces:
    """How tokens are spelled, read from the decoder. Raises UnsupportedModel for a kind that is not known."""
    state: Any = b'{"type": "none"}' if fast.decoder is None else fast.decoder.__getstate__()
    decoder = json.loads(state)
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return ByteLetters()
    if kinds == ["Metaspace"]:
        return SpacedPieces(steps[0].get("prepend_scheme", "always") != "never")
    if kinds == ["WordPiece"]:
        return WordPieces(steps[0]["prefix"])
    replaced = [(step["pattern"], step["content"]) for step in steps if step["type"] == "Replace"]
    if set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip"} and replaced == [({"String": SPACE}, " ")]:
        return SpacedPieces("Strip" in kinds)
    raise UnsupportedModel(f"the tokenizer's decoder {'+'.join(kinds)} is not supported")
