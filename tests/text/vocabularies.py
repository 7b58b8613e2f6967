"""Small vocabularies trained on the spot, as metadata of a GGUF file, with their makers' own encoders."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

_TEXT = """the a model token cache block engine of to and in is that for it was on are as with they be at this
from by hot word but what some we can out other were all there when use your Zürich naïve Ελλάδα привет
мир 世界 こんにちは 안녕하세요 don't I'll we've 3.14 2048 int x y[i];"""
WORDS = [*_TEXT.split(), "// end\n\t", "def f():"]
LETTERS = "abcdefghij ABC 0123456789 \n\t'’éßñ世界😀👍🏽\u0301\u200d\u00a0.,;:!?()[]{}<>|_-+*/\\\"#$%&@^~`"


def corpus(rng: random.Random, lines: int = 400) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) for _ in range(lines)]


def random_text(rng: random.Random, length: int | None = None) -> str:
    """Words, odd letters, runs of spaces, and now and then any character at all."""
    parts: list[str] = []
    for _ in range(rng.randint(0, 30) if length is None else length):
        kind = rng.random()
        if kind < 0.5:
            parts.append(rng.choice(WORDS) + rng.choice(["", " ", "  "]))
        elif kind < 0.9:
            parts.append("".join(rng.choices(LETTERS, k=rng.randint(1, 6))))
        else:
            code = rng.randrange(1, 0x110000)
            parts.append("" if 0xD800 <= code < 0xE000 else chr(code))
    return "".join(parts)


def sentence_piece(rng: random.Random, **options) -> tuple[sentencepiece.SentencePieceProcessor, bytes]:
    """A BPE model with Llama's settings, and its file."""
    file = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 700,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 0.999,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "minloglevel": 2,
        "hard_vocab_limit": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(rng)), model_writer=file, **settings | options
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    return processor, file.getvalue()


def sentence_piece_metadata(processor: sentencepiece.SentencePieceProcessor, **more) -> dict:
    """What a converter writes into a GGUF file for a SentencePiece model."""
    count = processor.vocab_size()

    def kind(token: int) -> int:
        if processor.is_byte(token):
            return 6
        return 2 if processor.is_unknown(token) else 3 if processor.is_control(token) else 1

    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.id_to_piece(token) for token in range(count)],
        "tokenizer.ggml.scores": [processor.get_score(token) for token in range(count)],
        "tokenizer.ggml.token_type": [kind(token) for token in range(count)],
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        **more,
    }


def byte_level(rng: random.Random, splitter=None, vocab_size: int = 600) -> tuple[Tokenizer, dict]:
    """A byte-level BPE trained with `tokenizers`, and its metadata."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter or pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(rng), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokenizer, {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def merged_pieces(rng: random.Random) -> tuple[Tokenizer, dict]:
    """A BPE as Gemma 4's tokenizer.json describes one, trained with `tokenizers`, and its metadata."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<eos>", "<bos>", "<turn|>", "<|tool_response>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([line + "\n\n\n" for line in corpus(rng)], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    bare = Tokenizer(models.BPE(model["vocab"], [tuple(m) for m in model["merges"]], byte_fallback=True))
    bare.normalizer, bare.decoder = tokenizer.normalizer, tokenizer.decoder
    return bare, {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, 4] + [6] * 256 + [1] * (len(tokens) - 260),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
    }


def write_hf(directory: Path, tokenizer: Tokenizer, config: dict | None = None) -> Path:
    """A directory as it comes from the hub."""
    directory.mkdir(exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config or {}))
    return directory
