"""What a model tells the engine about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers that share one kind of cache, hence one block table. `kind` is "full" for now."""

    kind: str
    num_layers: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    model_type: str  # the file in tenon/models that implements it
    vocab_size: int
    max_position: int  # context length the model was made for
    kv_groups: tuple[KVGroup, ...]
    eos_token_ids: tuple[int, ...]
    dtype: str  # "bfloat16" or "float32": activations and KV
