"""How text is cut into words before byte-level BPE, by the name a GGUF file gives in `tokenizer.ggml.pre`.

Each family of models was trained with its own splitting rule; the rule is part of the vocabulary, as
another one gives other ids. The expressions are those of the models' published `tokenizer.json` files; names
are the ones that GGUF converters write. A rule is a list of expressions applied one after the other:
each cuts the pieces that the one before it left into matches and what lies between matches.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from tenon.errors import UnsupportedModel

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_TIKTOKEN = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
)
_HAN = "\u4e00-\u9fa5"

_RULES: dict[str, tuple[str, ...]] = {
    "gpt2": (_GPT2,),
    "digits": (r"\p{N}", _GPT2),
    "llama3": (_TIKTOKEN % "{1,3}",),
    "llama3 with merges": (_TIKTOKEN % "{1,3}",),
    "qwen2": (_TIKTOKEN % "",),
    "qwen35": (
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES,
    ),
    "gpt4o": (_CASED % (_CONTRACTIONS + "?", _CONTRACTIONS + "?", "{1,3}"),),
    "tekken": (_CASED % ("", "", ""),),
    "deepseek-coder": (
        r"[\r\n]",
        r"\s?\p{L}+",
        r"\s?\p{P}+",
        f"[{_HAN}\u0800-\u4e00\uac00-\ud7ff]+",
        r"\p{N}",
    ),
    "deepseek-v3": (
        r"\p{N}{1,3}",
        f"[{_HAN}\u3040-\u309f\u30a0-\u30ff]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES,
    ),
    "falcon": (r"[\p{P}$+<=>^~|`]+", _GPT2, r"[0-9][0-9][0-9]"),
    "default": (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}

_NAMES: dict[str, str] = {
    "gpt2": "gpt-2 phi-2 mpt olmo jais exaone4 trillion granite-docling mellum gigachat a.x-4.0 modern-bert",
    "digits": "smollm starcoder refact command-r codeshell exaone minerva-7b",
    "llama3": "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
    "llama3 with merges": "dbrx smaug-bpe glm4 chatglm-bpe",
    "qwen2": "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan kormo grok-2 solar-open",
    "qwen35": "qwen35",
    "gpt4o": "gpt-4o llama4 kanana2 minimax-m2",
    "tekken": "tekken",
    "deepseek-coder": "deepseek-coder",
    "deepseek-v3": "deepseek-v3 hunyuan-dense joyai-llm",
    "falcon": "falcon",
    "default": "default",
}
_RULE_OF = {name: rule for rule, names in _NAMES.items() for name in names.split()}

# Rules with which whole words that are in the vocabulary are taken as they are, whatever the merges say;
# these vocabularies also start with BOS unless the file says otherwise.
_WHOLE_WORDS = {"llama3", "tekken"}

# Vocabularies (not rules: others share them) whose text is put into Unicode's composed form first.
_COMPOSED = {"qwen2", "qwen35"}


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    normalizer: normalizers.Normalizer | None
    splitter: pre_tokenizers.PreTokenizer
    ignore_merges: bool
    add_bos: bool  # what a file means that does not say whether to start with BOS


def pre_tokenizer(name: str) -> PreTokenizer:
    """The rule of a `tokenizer.ggml.pre` name. Raises UnsupportedModel, naming it, when it is not known."""
    rule = _RULE_OF.get(name)
    if rule is None:
        raise UnsupportedModel(
            f"tokenizer.ggml.pre {name!r} is not supported; known are {', '.join(sorted(_RULE_OF))}"
        )
    whole_words = rule in _WHOLE_WORDS
    normalizer = normalizers.NFC() if name in _COMPOSED else None
    return PreTokenizer(normalizer, _splitter(_RULES[rule]), ignore_merges=whole_words, add_bos=whole_words)


def _splitter(patterns: tuple[str, ...]) -> pre_tokenizers.PreTokenizer:
    # ByteLevel writes bytes as letters, so it comes last; it has GPT-2's expression built in.
    *before, last = patterns
    steps = [_step(pattern) for pattern in (before if last == _GPT2 else patterns)]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=last == _GPT2))
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def _step(pattern: str) -> pre_tokenizers.PreTokenizer:
    if pattern == r"\p{N}":
        return pre_tokenizers.Digits(individual_digits=True)  # the same, without a regex
    return pre_tokenizers.Split(Regex(pattern), "isolated")
