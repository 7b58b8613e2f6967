"""What a model's vectors are, from its files: config.json, and the modules of sentence-transformers.

`modules.json` lists what follows the transformer: pooling, dense layers, normalisation (Reimers & Gurevych
2019). A classifier's labels and activation are in config.json.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from tenon.core.pooling import Pooler, PoolingSpec
from tenon.errors import ConfigError, ModelFileError, UnsupportedModel
from tenon.formats import small
from tenon.models._checkpoint import Checkpoint, read_json
from tenon.models._fields import Fields

_MODES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_FLAGS = {  # of older files, in the order in which they count
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PROBLEMS = {
    "regression": "none",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


class Module(msgspec.Struct):
    """An entry of modules.json."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        return self.type.rpartition(".")[2]


def pooling_spec(
    checkpoint: Checkpoint, family: ModuleType, width: int, convert: str, pooler: Pooler
) -> PoolingSpec | None:
    """None for a model that generates. Raises ConfigError, UnsupportedModel or ModelFileError."""
    own = family.POOLING_ARCHITECTURES.get(checkpoint.architecture)
    if convert == "none" and own is not None:
        raise ConfigError(f"convert none: {checkpoint.architecture} does not generate text")
    task = {"auto": own, "none": None, "score": "classify"}.get(convert, convert)
    if task is None:
        if pooler != Pooler():
            raise ConfigError("pooler is for models that give vectors; convert makes one of this model")
        return None
    encoder = getattr(family, "ENCODER", False)
    if task == "embed":
        spec = _embedding(checkpoint, width, "mean" if encoder else "last")
    else:
        spec = _classifier(checkpoint, "cls" if encoder else "last")
    if convert == "score" and spec.width != 1:
        raise ConfigError(f"convert score: the model has {spec.width} labels, a score is one; use classify")
    given = {name: value for name in pooler.__struct_fields__ if (value := getattr(pooler, name)) is not None}
    return msgspec.structs.replace(spec, **given)


def longest_input(checkpoint: Checkpoint, max_position: int) -> int:
    """`max_position`, or what sentence-transformers cuts texts to."""
    directory = checkpoint.directory
    for name in (
        "sentence_bert_config.json",
        "sentence_roberta_config.json",
        "sentence_xlm-roberta_config.json",
    ):
        if directory is not None and (path := directory / name).is_file():
            return min(max_position, Fields(read_json(path), path).whole("max_seq_length", max_position))
    return max_position


def modules(checkpoint: Checkpoint) -> list[Module]:
    """What modules.json lists behind the transformer; empty without it."""
    if checkpoint.directory is None:
        return []
    listed = small.read_json(checkpoint.directory / "modules.json", list[Module]) or []
    return [module for module in listed if module.kind != "Transformer"]


def _embedding(checkpoint: Checkpoint, width: int, pooling: str) -> PoolingSpec:
    normalize = True
    listed = modules(checkpoint)
    if listed:
        normalize = any(module.kind == "Normalize" for module in listed)
    for module in listed:
        if module.kind == "Pooling":
            pooling = _pooling_of(module_config(checkpoint, module))
        elif module.kind != "Normalize":
            raise UnsupportedModel(f"{checkpoint.file.path}: the module {module.kind} is not supported")
    fields = checkpoint.fields
    dimensions = fields.get("matryoshka_dimensions", [])
    if not isinstance(dimensions, list) or not all(isinstance(n, int) and n > 0 for n in dimensions):
        raise fields.error("matryoshka_dimensions", "must be a list of whole numbers")
    return PoolingSpec(
        task="embed",
        pooling=pooling,
        width=width,
        normalize=normalize,
        matryoshka=bool(dimensions) or fields.flag("is_matryoshka", False),
        dimensions=tuple(dimensions),
    )


def module_config(checkpoint: Checkpoint, module: Module) -> Fields:
    assert checkpoint.directory is not None
    if Path(module.path).name != module.path or module.path == "..":
        raise ModelFileError(f"{checkpoint.directory}/modules.json: {module.path!r} is not a directory here")
    path = checkpoint.directory / module.path / "config.json"
    return Fields(read_json(path), path)


def _pooling_of(fields: Fields) -> str:
    given: Any = fields.get("pooling_mode")
    if given is None:
        given = [mode for flag, mode in _FLAGS.items() if fields.flag(flag, False)] or ["mean"]
    asked = given if isinstance(given, list) else [given]
    if len(asked) != 1 or asked[0] not in _MODES:
        raise UnsupportedModel(
            f"{fields.path}: pooling by {', '.join(map(str, asked))} is not supported; "
            f"{', '.join(_MODES)} are"
        )
    return _MODES[asked[0]]


def _classifier(checkpoint: Checkpoint, pooling: str) -> PoolingSpec:
    fields = checkpoint.fields
    names = fields.get("id2label", {})
    if not isinstance(names, dict) or not all(str(key).isdecimal() for key in names):
        raise fields.error("id2label", "must be an object of numbers and names")
    count = len(names) or fields.whole("num_labels", 2)
    labels = tuple(str(names.get(str(i), f"LABEL_{i}")) for i in range(count))
    return PoolingSpec(
        task="classify",
        pooling=_MODES.get(fields.text("classifier_pooling", pooling), pooling),
        width=count,
        activation=_activation(fields, count),
        labels=labels,
    )


def _activation(fields: Fields, count: int) -> str:
    """What sentence-transformers wrote of a cross-encoder; else by the kind of problem, or the labels."""
    told = fields.within("sentence_transformers").get(
        "activation_fn", fields.get("sbert_ce_default_activation_function")
    )
    if isinstance(told, str):
        kind = told.rpartition(".")[2].lower()
        known = {"identity": "none", "sigmoid": "sigmoid", "softmax": "softmax"}
        if kind not in known:
            raise UnsupportedModel(f"{fields.path}: the activation {told} is not supported")
        return known[kind]
    default = "sigmoid" if count == 1 else "softmax"
    return _PROBLEMS.get(fields.text("problem_type", ""), default)
