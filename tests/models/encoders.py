"""Tiny random models that give vectors, made with transformers and saved for tenon; and how to run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig

from tenon.core.batch import Batch
from tenon.core.files import ModelFiles
from tenon.core.spec import PoolingModel
from tenon.util import plugin
from tests.models.families import save_safetensors, tiny

ENCODERS = [
    name
    for name in plugin.names("tenon.models")
    if getattr(plugin.load("tenon.models", name), "ENCODER", False)
]


def architectures(family: str, task: str) -> list[str]:
    """Class names of a family's models for a task."""
    table = plugin.load("tenon.models", family).POOLING_ARCHITECTURES
    return [name for name, own in table.items() if own == task]


def make_vectors_model(architecture: str, config: dict[str, Any], seed: int) -> Any:
    """A float32 model of a class of transformers, with weights large enough for every part to matter."""
    generator = torch.Generator().manual_seed(seed)
    settings = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    hf_config = AutoConfig.for_model(config["model_type"], **settings)
    hf_config._attn_implementation = "eager"
    model = getattr(transformers, architecture)(hf_config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.5)
            else:
                parameter.copy_(1 + noise * 0.3)
    return model


def save(
    family: str, architecture: str, directory: Path, seed: int, **settings: Any
) -> tuple[Any, ModelFiles]:
    model = make_vectors_model(architecture, {**tiny(family), **settings}, seed)
    return model, save_safetensors(model, directory)


def change_config(files: ModelFiles, **changes: Any) -> None:
    path = files.directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sentences(rng: np.random.Generator, lengths: list[int], vocab: int = 160) -> list[list[int]]:
    """Token ids above those that have a meaning to some family."""
    return [rng.integers(5, vocab, n).tolist() for n in lengths]


def packed(texts: list[list[int]], types: list[list[int]] | None = None) -> Batch:
    """An encoder's batch: whole sequences, one after the other."""
    lengths = [len(text) for text in texts]
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    nothing = np.zeros(starts[-1], np.int32)
    return Batch(
        token_ids_T=np.concatenate(texts).astype(np.int32),
        positions_T=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        slots_T=nothing,
        query_start_R1=starts,
        context_len_R=np.array(lengths, np.int32),
        block_table_RB=np.zeros((len(texts), 1), np.int32),
        logit_rows_S=starts[1:] - 1,
        token_types_T=nothing if types is None else np.concatenate(types).astype(np.int32),
    )


def states(model: PoolingModel, batch: Batch) -> list[np.ndarray]:
    """Of each sequence, float32 [tokens, width]."""
    states_TD = model.states(model.forward(batch, []))
    return np.split(np.array(states_TD), batch.query_start_R1[1:-1])


def reference(model: Any, ids: list[int], types: list[int] | None = None) -> Any:
    """transformers' output for one sequence."""
    inputs = {"input_ids": torch.tensor([ids])}
    if types is not None:
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        return model(**inputs)
