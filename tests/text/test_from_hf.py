"""Tokenizers from Hugging Face directories equal those of `transformers`."""

import json
import random

import pytest
from tokenizers import decoders, normalizers, pre_tokenizers, processors

from tenon.core.files import ModelFiles
from tenon.errors import ModelFileError
from tenon.text.load import load_tokenizer
from tests.text import vocabularies


def load(directory):
    return load_tokenizer(ModelFiles("hf", (), "test", directory))


@pytest.fixture
def byte_level(tmp_path):
    fast, _ = vocabularies.byte_level(random.Random(1))
    fast.decoder = decoders.ByteLevel()
    return vocabularies.write_hf(tmp_path / "model", fast, {"eos_token": "<|im_end|>", "bos_token": None})


def change(directory, name, **values):
    path = directory / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | values))


def test_ids_and_text_equal_transformers(byte_level, seed):
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_file=str(byte_level / "tokenizer.json"))
    tokenizer = load(byte_level)
    rng = random.Random(seed)
    for _ in range(100):
        text = vocabularies.random_text(rng) + rng.choice(["", "<|im_end|>"])
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text)
        for skip in (True, False):
            assert tokenizer.decode(ids, skip_special_tokens=skip) == reference.decode(
                ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
    assert tokenizer.vocab_size == len(reference)
    assert tokenizer.special_ids == {0, 1, 2}


def test_ends_are_what_the_files_say(byte_level):
    assert load(byte_level).eos_token_ids == (2,)
    change(byte_level, "config.json", eos_token_id=0)
    assert load(byte_level).eos_token_ids == (2, 0)
    change(byte_level, "generation_config.json", eos_token_id=[1, 2])
    assert load(byte_level).eos_token_ids == (2, 1)
    assert load(byte_level).bos_token_id is None
    change(byte_level, "tokenizer_config.json", bos_token={"content": "<|im_start|>"})
    assert load(byte_level).bos_token_id == 1
    change(byte_level, "generation_config.json", eos_token_id=["x"])
    with pytest.raises(ModelFileError, match="eos_token_id"):
        load(byte_level)


def test_bos_comes_from_the_post_processor_or_the_flag(byte_level):
    fast, _ = vocabularies.byte_level(random.Random(1))
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", pair="$A $B", special_tokens=[("<|im_start|>", 1)]
    )
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    directory = vocabularies.write_hf(byte_level, fast, config)
    plain = load(directory).encode("hello", add_special_tokens=False)
    assert load(directory).encode("hello") == [1, *plain]
    change(directory, "tokenizer_config.json", add_bos_token=False)
    assert load(directory).encode("hello") == plain
    change(directory, "tokenizer_config.json", add_bos_token=True, add_eos_token=True)
    assert load(directory).encode("hello") == [1, *plain, 2]


def test_truncation_of_training_does_not_apply(byte_level):
    fast, _ = vocabularies.byte_level(random.Random(1))
    fast.decoder = decoders.ByteLevel()
    fast.enable_truncation(4)
    fast.enable_padding(length=8)
    directory = vocabularies.write_hf(byte_level, fast)
    assert len(load(directory).encode("x " * 50)) > 40
    assert len(load(directory).encode("x")) == 1


def test_chat_templates(byte_level):
    assert load(byte_level).chat_template is None
    change(byte_level, "tokenizer_config.json", chat_template="one")
    assert load(byte_level).chat_template == "one"
    listed = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "three"}]
    change(byte_level, "tokenizer_config.json", chat_template=listed)
    assert load(byte_level).chat_templates == {"default": "two", "tool_use": "three"}
    (byte_level / "chat_template.jinja").write_text("four")
    (byte_level / "chat_templates").mkdir()
    (byte_level / "chat_templates" / "rag.jinja").write_text("five")
    assert load(byte_level).chat_templates == {"default": "four", "tool_use": "three", "rag": "five"}
    for wrong in ([3], 3, [{"name": "default", "template": 3}], [{"name": [], "template": "x"}]):
        change(byte_level, "tokenizer_config.json", chat_template=wrong)
        with pytest.raises(ModelFileError, match="chat_template"):
            load(byte_level)


def test_templates_are_bounded(byte_level):
    (byte_level / "chat_template.jinja").write_text("x" * (1 << 20))
    assert len(load(byte_level).chat_template) == 1 << 20
    (byte_level / "chat_template.jinja").write_text("x" * ((1 << 20) + 1))
    with pytest.raises(ModelFileError, match=r"chat_template\.jinja: larger than"):
        load(byte_level)
    (byte_level / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match=r"chat_template\.jinja: not UTF-8"):
        load(byte_level)
    (byte_level / "chat_template.jinja").unlink()
    (byte_level / "chat_templates").mkdir()
    for number in range(65):
        (byte_level / "chat_templates" / f"{number}.jinja").write_text("x")
    with pytest.raises(ModelFileError, match="65 templates; at most 64"):
        load(byte_level)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', "\x00\xff"])
def test_malformed_files_are_named(byte_level, file, content):
    if file == "tokenizer_config.json" and content.startswith('{"'):
        pytest.skip("an object like any other")
    (byte_level / file).write_text(content, "latin-1")
    with pytest.raises(ModelFileError, match=file):
        load(byte_level)


def test_a_directory_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelFileError, match="--tokenizer"):
        load(tmp_path)


def test_metaspace_tokenizers(tmp_path, seed):
    """How Llama-2-like models are published nowadays: Metaspace instead of normalizers."""
    from tenon.text.from_gguf import from_metadata

    processor, _ = vocabularies.sentence_piece(random.Random(seed))
    fast = from_metadata(vocabularies.sentence_piece_metadata(processor))._fast
    fast.normalizer = normalizers.Sequence([])
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    fast.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = load(vocabularies.write_hf(tmp_path / "model", fast))
    for text in ("the cache", "in that block"):
        assert tokenizer.encode(text) == processor.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_sentencepiece_model_alone(tmp_path, seed):
    rng = random.Random(seed)
    processor, file = vocabularies.sentence_piece(rng)
    (tmp_path / "tokenizer.model").write_bytes(file)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    tokenizer = load(tmp_path)
    for _ in range(50):
        text = vocabularies.random_text(rng)
        assert tokenizer.encode(text) == [processor.bos_id(), *processor.encode(text)]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_ids == (processor.eos_id(),)
