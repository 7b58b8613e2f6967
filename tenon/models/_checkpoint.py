"""A model's files, opened: what they say the model is, and where its tensors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tenon.core.files import ModelFiles
from tenon.errors import ModelFileError
from tenon.formats import small
from tenon.formats.gguf import GGUFFile, GGUFParts, open_gguf
from tenon.formats.mapped import TensorFile
from tenon.formats.packed import PackedFile
from tenon.formats.paddle import PaddleFile, is_paddle
from tenon.formats.safetensors import open_safetensors
from tenon.models._fields import Fields


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`architecture` is HF's class name or GGUF's `general.architecture`; `fields` is config.json, or the
    metadata below that architecture's prefix; `quant` names the file in tenon/quant that reads linear layers.
    """

    kind: str  # "hf" or "gguf"
    file: TensorFile
    architecture: str
    model_type: str
    fields: Fields
    quant: str
    eos_token_ids: tuple[int, ...]
    directory: Path | None = None  # of an HF model
    quant_settings: Mapping[str, Any] = field(default_factory=dict)  # what config.json says of `quant`


def open_checkpoint(files: ModelFiles) -> Checkpoint:
    """Raises ModelFileError when the files are malformed or incomplete. Reads headers only."""
    if files.kind == "gguf":
        return _from_gguf(open_gguf(files.paths))
    if files.kind == "hf":
        return _from_hf(files.directory, open_safetensors(files.directory, files.paths))
    packed = PackedFile(files.paths[0])
    return _from_gguf(packed) if packed.table.kind == "gguf" else _from_hf(files.directory, packed)


def _from_gguf(file: GGUFFile | GGUFParts | PackedFile) -> Checkpoint:
    everything = Fields(file.metadata, file.path)
    architecture = everything.text("general.architecture")
    fields = Fields(file.metadata, file.path, f"{architecture}.")
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    eos = [i for name in names if (i := everything.get(f"tokenizer.ggml.{name}")) is not None]
    return Checkpoint("gguf", file, architecture, architecture, fields, "gguf", _token_ids(everything, eos))


def _from_hf(directory: Path, file: TensorFile) -> Checkpoint:
    config = Fields(read_json(directory / "config.json"), directory / "config.json")
    architectures = config.get("architectures", [])
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise config.error("architectures", "must name the model's class")
    generation = directory / "generation_config.json"
    eos = (small.read_object(generation) or {}).get("eos_token_id")
    eos = config.get("eos_token_id", []) if eos is None else eos
    if is_paddle(file):
        heads = config.whole("num_attention_heads")
        file = PaddleFile(
            file, heads, config.whole("num_key_value_heads", heads), config.whole("hidden_size")
        )
    quant = config.within("quantization_config")
    return Checkpoint(
        kind="hf",
        file=file,
        architecture=architectures[0],
        model_type=config.text("model_type", ""),
        fields=config,
        quant=quant.text("quant_method") if quant.values else "none",
        quant_settings=quant.values,
        eos_token_ids=_token_ids(config, eos if isinstance(eos, list) else [eos]),
        directory=directory,
    )


def name_in(checkpoint: Checkpoint, field: str, gguf_fields: dict[str, tuple[str, ...]]) -> str:
    """What the checkpoint calls a field of config.json."""
    return gguf_fields[field][0] if checkpoint.kind == "gguf" else field


def text_model(checkpoint: Checkpoint) -> Checkpoint:
    """The part of a configuration that is the language model's, where there are others beside it."""
    if checkpoint.fields.get("text_config") is None:
        return checkpoint
    return replace(checkpoint, fields=checkpoint.fields.within("text_config"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file that must be there. Raises ModelFileError when it cannot be had."""
    values = small.read_object(path)
    if values is None:
        raise ModelFileError(f"{path}: cannot read it: it is not there")
    return values


def _token_ids(fields: Fields, ids: list[Any]) -> tuple[int, ...]:
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, int) or one < 0:
            raise fields.error("eos_token_id", f"must hold token ids, not {one!r}")
    return tuple(dict.fromkeys(ids))
