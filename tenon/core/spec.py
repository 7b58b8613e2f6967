"""What a model is to the engine, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tenon.core.batch import Batch
from tenon.core.pooling import PoolingSpec


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
    kv_groups: tuple[KVGroup, ...]  # none: an encoder, whose attention looks both ways
    eos_token_ids: tuple[int, ...]
    dtype: str  # "bfloat16" or "float32": activations and KV
    act_bits: int = (
        0  # 8, 16: linear layers over group-quantised weights quantise their input to such integers
    )
    pooling: PoolingSpec | None = None  # of a `PoolingModel`

    @property
    def whole_sequences(self) -> bool:
        """An encoder: nothing is kept between steps, so a sequence is computed in one."""
        return not self.kv_groups


class Model(Protocol):
    """What the engine runs. Rows are independent: a row's bits do not depend on what else is in the batch.

    Shape letters: T tokens, D model width, S rows whose logits are wanted, V vocabulary.
    """

    spec: ModelSpec

    def kv_bytes_per_block(self, block_size: int) -> int:
        """Bytes that one block of `block_size` tokens takes in the whole cache."""
        ...

    def kv_caches(self, num_blocks: int, block_size: int) -> list[Any]:
        """The model's own cache, one per layer: what `forward` takes."""
        ...

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        """hidden_TD float32; writes K and V of the batch's tokens into `kv`, one per layer."""
        ...

    def logits(self, hidden_SD: np.ndarray) -> np.ndarray:
        """logits_SV float32 of rows of what `forward` returned."""
        ...


class PoolingModel(Protocol):
    """A model that gives vectors. `spec.pooling` is set; the rest is as for `Model`.

    Shape letters: T tokens, D model width, R sequences, N numbers of a vector.
    """

    spec: ModelSpec

    def kv_bytes_per_block(self, block_size: int) -> int: ...

    def kv_caches(self, num_blocks: int, block_size: int) -> list[Any]: ...

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray: ...

    def states(self, hidden_TD: np.ndarray) -> np.ndarray:
        """states_TD float32 of what `forward` returned: what is pooled."""
        ...

    def head(self, pooled_RD: np.ndarray) -> np.ndarray:
        """vectors_RN float32 of pooled states, before normalisation or activation."""
        ...
