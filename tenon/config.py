"""What a user may set about an engine, defined once.

`EngineArgs` is the user's side: every field carries its help text, and the command line makes its flags
from the fields. `EngineArgs.resolve()` checks them and gives `EngineConfig`, the frozen form that the engine
process receives (as msgpack). Raises `ConfigError`, naming the argument.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from tenon.core.pooling import ACTIVATIONS, POOLINGS, Pooler
from tenon.core.sampling import MAX_LOGPROBS, MAX_SEED
from tenon.errors import ConfigError

DTYPES = ("auto", "bfloat16", "float32")
LINEAR_ACTIVATIONS = ("auto", "bfloat16", "int8", "int16")
QUANTIZATIONS = ("int8", "int4")
POLICIES = ("fcfs", "priority")
LOAD_FORMATS = ("auto", "pack", "oracle")
MODEL_IMPLS = ("auto", "transformers")
CONVERSIONS = ("auto", "none", "embed", "classify", "score")
DEFAULT_MODEL = "smollm2"

_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_bytes(value: int | str) -> int:
    """`2GiB`, `500 MB`, `1.5g` or a plain number, as bytes. Raises ValueError."""
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]{0,3})\s*", value)
    if not match or match[2].lower() not in _UNITS:
        raise ValueError(f"{value!r} is not a size in bytes; write for example 2GiB or 500MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


_SWITCH = {"true": True, "false": False}
_POOLER_VALUES: dict[str, dict[str, Any]] = {
    "pooling": {name: name for name in POOLINGS},
    "normalize": _SWITCH,
    "activation": {name: name for name in ACTIVATIONS},
    "matryoshka": _SWITCH,
}


def parse_pooler(text: str) -> Pooler:
    """`pooling=mean,normalize=true` as a Pooler. Raises ConfigError."""
    given = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in _POOLER_VALUES:
            raise ConfigError(f"pooler: {name!r} is not one of {', '.join(_POOLER_VALUES)}")
        if value not in _POOLER_VALUES[name]:
            raise ConfigError(
                f"pooler: {name} must be one of {', '.join(_POOLER_VALUES[name])}, not {value!r}"
            )
        given[name] = _POOLER_VALUES[name][value]
    return Pooler(**given)


def _arg(default: Any, help: str, choices: tuple[str, ...] | None = None, metavar: str | None = None) -> Any:
    metadata = {"help": help, "choices": choices, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Checked engine arguments. What depends on the model (its length, its dtype) is settled at load."""

    model: str
    revision: str | None
    served_model_name: tuple[str, ...]
    tokenizer: str | None
    chat_template: str | None
    load_format: str
    dtype: str
    activations: str
    quantization: str | None
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    kv_cache_memory: int | None
    enable_prefix_caching: bool
    scheduling_policy: str
    max_logprobs: int
    seed: int | None
    num_threads: int | None
    convert: str = "auto"
    pooler: Pooler = Pooler()
    model_impl: str = "auto"


@dataclass(kw_only=True)
class EngineArgs:
    """Engine arguments by the names that vLLM's users know."""

    model: str = _arg(DEFAULT_MODEL, "Name of a pulled model, directory, .gguf file or Hugging Face repo id")
    revision: str | None = _arg(None, "Branch, tag or commit of a Hugging Face repo")
    served_model_name: str | list[str] | None = _arg(
        None, "Model name that the API answers to; comma-separated for several (default: the model's name)"
    )
    tokenizer: str | None = _arg(None, "Directory, file or repo of the tokenizer, if not the model's own")
    chat_template: str | None = _arg(None, "File with a Jinja chat template to use instead of the model's")
    load_format: str = _arg(
        "auto",
        "auto: a model's files, of which weights in bfloat16 are used where they lie. pack: those too are "
        "brought into the kernels' order, in memory of their own. oracle: a built-in test model, no files",
        LOAD_FORMATS,
    )
    dtype: str = _arg(
        "auto", "Type of activations and KV cache: auto (bfloat16), bfloat16 or float32", DTYPES
    )
    activations: str = _arg(
        "auto",
        "What meets weights quantised in groups (Q4, Q5, Q6, Q8): bfloat16, int16 or int8 (in groups of 32; "
        "int8 is faster and less accurate), or auto (int16, but bfloat16 on machines with AMX)",
        LINEAR_ACTIVATIONS,
    )
    quantization: str | None = _arg(
        None,
        "Quantise float weights at load: int8, or int4 (embedding and head: int8); default: as they are",
        QUANTIZATIONS,
    )
    max_model_len: int | None = _arg(
        None, "Longest prompt plus output, in tokens (default: the model's, if memory allows)"
    )
    max_num_seqs: int = _arg(256, "Most requests that run at the same time")
    max_num_batched_tokens: int = _arg(2048, "Most tokens computed in one step; longer prompts are chunked")
    block_size: int = _arg(32, "Tokens in one KV cache block; a multiple of 32")
    kv_cache_memory: int | str | None = _arg(
        None, "Size of the KV cache, for example 2GiB (default: from free memory)", metavar="BYTES"
    )
    enable_prefix_caching: bool = _arg(True, "Reuse the KV cache of equal prefixes across requests")
    scheduling_policy: str = _arg(
        "fcfs", "Order of requests: fcfs (first come, first served) or priority", POLICIES
    )
    max_logprobs: int = _arg(MAX_LOGPROBS, "Most logprobs a request may ask for, per position")
    seed: int | None = _arg(None, "Seed of the seeds that requests without one are given (default: random)")
    num_threads: int | None = _arg(None, "Worker threads of the native kernels (default: usable cores)")
    convert: str = _arg(
        "auto",
        "What to make of the model: embed, classify, score (pairs of texts), none (generate) or auto (as its "
        "files say)",
        CONVERSIONS,
    )
    pooler: str | None = _arg(
        None,
        "How vectors are made, where the model's files are not to decide: pooling=mean|cls|last, "
        "normalize=true|false, activation=none|sigmoid|softmax, matryoshka=true; comma-separated",
        metavar="KEY=VALUE",
    )
    model_impl: str = _arg(
        "auto",
        "What runs the model: auto (tenon), or transformers, which must be installed: slow, for what tenon "
        "does not have",
        MODEL_IMPLS,
    )

    def resolve(self) -> EngineConfig:
        """Check every argument. Raises ConfigError."""
        for field in dataclasses.fields(self):
            choices, value = field.metadata["choices"], getattr(self, field.name)
            if choices and value not in choices and not (value is None and field.default is None):
                raise ConfigError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")
        if self.dtype == "float32" and self.activations != "auto":
            raise ConfigError(f"activations {self.activations} is for dtype bfloat16, not float32")
        if self.model_impl != "auto":
            self._check_fallback()
        for name in ("max_model_len", "num_threads"):
            if getattr(self, name) is not None:
                self._whole(name, 1, 2**31 - 1)
        self._whole("max_num_seqs", 1, 65536)
        self._whole("max_num_batched_tokens", 1, 2**20)
        self._whole("block_size", 32, 4096)
        self._whole("max_logprobs", 0, MAX_LOGPROBS)
        if self.seed is not None:
            self._whole("seed", 0, MAX_SEED)
        if self.block_size % 32:
            raise ConfigError(f"block_size must be a multiple of 32, not {self.block_size}")
        if not self.model or not isinstance(self.model, str):
            raise ConfigError("model must be a name or a path")
        if not isinstance(self.enable_prefix_caching, bool):
            raise ConfigError(
                f"enable_prefix_caching must be true or false, not {self.enable_prefix_caching!r}"
            )
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["kv_cache_memory"] = self._kv_bytes()
        values["pooler"] = parse_pooler(self.pooler or "")
        values["served_model_name"] = self._served_names()
        # Every running request gets at least one token per step, so a step has room for all of them.
        values["max_num_seqs"] = min(self.max_num_seqs, self.max_num_batched_tokens)
        return EngineConfig(**values)

    def _check_fallback(self) -> None:
        """transformers runs weights as torch has them, and only to generate."""
        for name in ("activations", "quantization", "convert", "pooler", "load_format", "num_threads"):
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default:
                raise ConfigError(f"{name} cannot be given with model_impl {self.model_impl}")

    def _whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name} must be a whole number between {low} and {high}, not {value!r}")

    def _kv_bytes(self) -> int | None:
        if self.kv_cache_memory is None:
            return None
        try:
            size = parse_bytes(self.kv_cache_memory)
        except ValueError as error:
            raise ConfigError(f"kv_cache_memory: {error}") from None
        if size <= 0:
            raise ConfigError(f"kv_cache_memory must be above 0, not {self.kv_cache_memory!r}")
        return size

    def _served_names(self) -> tuple[str, ...]:
        names = self.served_model_name
        if isinstance(names, str):
            names = names.split(",")
        if names is None:
            # A path's own name says enough; the directories above it are nobody's business.
            stem = self.model.rstrip("/")
            is_path = stem.endswith(".gguf") or stem.startswith(("/", "./", "../", "~"))
            names = [stem.rsplit("/", 1)[-1] if is_path else stem]
        names = [name.strip() for name in names]
        if not names or not all(names):
            raise ConfigError("served_model_name must not be empty")
        return tuple(names)


def read_models(path: Path, shared: EngineArgs) -> list[EngineArgs]:
    """A TOML file with a table for each model, named as the API calls it: its `model`, and engine arguments
    where they differ from `shared`. Raises ConfigError."""
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    models = []
    for name, table in tables.items():
        if not isinstance(table, dict) or "model" not in table:
            raise ConfigError(f"{path}: write a table [{name}] with a line `model = ...`")
        given = {"served_model_name": [name], **table}
        try:
            make_args(**given).resolve()  # what is wrong here is told of here
            models.append(dataclasses.replace(shared, **given))
        except ConfigError as error:
            raise ConfigError(f"{path}, [{name}]: {error}") from None
    if not models:
        raise ConfigError(f"{path} has no model: write a table for each, like [chat]")
    return models


def make_args(**kwargs: Any) -> EngineArgs:
    """EngineArgs from keyword arguments. Raises ConfigError for a name that is not an engine argument."""
    known = get_type_hints(EngineArgs)
    for name in kwargs:
        if name not in known:
            raise ConfigError(f"{name} is not an engine argument; there are {', '.join(sorted(known))}")
    return EngineArgs(**kwargs)
