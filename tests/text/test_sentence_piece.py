"""SentencePiece files are read as the `sentencepiece` package reads them; broken ones are refused."""

import contextlib
import io
import random

import pytest
import sentencepiece

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.text import sentence_piece
from tests.text import vocabularies


def test_metadata_equals_the_packages(seed):
    processor, file = vocabularies.sentence_piece(random.Random(seed))
    expected = vocabularies.sentence_piece_metadata(processor)
    got = sentence_piece.parse(file)
    for key in ("tokens", "scores", "token_type", "model"):
        assert got[f"tokenizer.ggml.{key}"] == expected[f"tokenizer.ggml.{key}"]
    assert got["tokenizer.ggml.add_space_prefix"] is True
    assert got["tokenizer.ggml.remove_extra_whitespaces"] is False


def test_unigram_models_are_refused(tmp_path, seed):
    file = io.BytesIO()
    lines = vocabularies.corpus(random.Random(seed))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=file,
        vocab_size=150,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(file.getvalue())
    with pytest.raises(UnsupportedModel, match=r"unigram.*tokenizer\.json"):
        sentence_piece.read(path)


def test_malformed_files_are_typed_errors(tmp_path, seed):
    rng = random.Random(seed)
    _, file = vocabularies.sentence_piece(rng)
    path = tmp_path / "tokenizer.model"
    for _ in range(200):
        broken = bytearray(file[: rng.randrange(len(file))])
        for _ in range(rng.randrange(6)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        with contextlib.suppress(ModelFileError):
            assert sentence_piece.read(path)["tokenizer.ggml.tokens"]


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\x80", b"\x80" * 12, b"\x0b", b"\x08\x01", b"\x12\x00"])
def test_what_is_no_model_at_all(tmp_path, data):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"tokenizer\.model"):
        sentence_piece.read(path)
