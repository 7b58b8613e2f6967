"""What a model is to the engine, and what it tells about itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tenon.core.batch import Batch
from tenon.core.pooling import PoolingSpec


@dataclass(frozen=True, slots=True)
class StateArray:
    """One array of what a recurrent layer remembers: its shape in each slot, and its type."""

    shape: tuple[int, ...]
    dtype: str = "float32"  # or "bfloat16"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * {"float32": 4, "bfloat16": 2}[self.dtype]


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers that share one kind of cache.

    "full": K and V of every token; with a `window` or a `local_chunk` those that no later token sees are
    given up. "latent": the same, of one head of which K and V are made. Groups of these kinds have block
    tables, and take their blocks from one pool; so they have the same number of layers, `num_layers`:
    `layers` are fewer in a group that was filled up. Layers of equal rank share the memory of their cache.
    "state": what is left of all tokens so far: `arrays`, for every layer and slot.

    Layers of groups that differ in shape share memory too: where those of one group have a block each, those
    of another, which keep less of a token, have `parts` blocks, of as many layers.
    """

    kind: str
    num_layers: int
    num_kv_heads: int = 0
    head_dim: int = 0
    layers: tuple[int, ...] = ()  # of the model; none given: the first `num_layers`
    window: int = 0  # positions that a token sees, its own included; 0: all
    local_chunk: int = 0  # a token sees positions from the last multiple of it on; 0: all
    arrays: tuple[StateArray, ...] = ()
    parts: int = 1

    def __post_init__(self) -> None:
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(self.num_layers)))

    @property
    def numbers(self) -> int:
        """What a layer keeps of a token, in numbers."""
        return self.num_kv_heads * self.head_dim

    @property
    def bounded(self) -> bool:
        """A token does not see all of those before it."""
        return bool(self.window or self.local_chunk)

    def first_seen(self, position: int) -> int:
        """The first position that a token at `position`, or any after it, sees."""
        first = max(0, position - self.window + 1) if self.window else 0
        return max(first, position - position % self.local_chunk) if self.local_chunk else first

    def unseen_from(self, position: int) -> int:
        """The first token that does not see `position` any more, in a bounded group."""
        ends = [position + self.window] if self.window else []
        if self.local_chunk:
            ends.append((position // self.local_chunk + 1) * self.local_chunk)
        return min(ends)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    model_type: str  # the file in tenon/models that implements it
    vocab_size: int
    max_position: int  # context length the model was made for
    kv_groups: tuple[
        KVGroup, ...
    ]  # those with blocks first; none: an encoder, whose attention looks both ways
    eos_token_ids: tuple[int, ...]
    dtype: str  # "bfloat16" or "float32": activations and KV
    act_bits: int = (
        0  # 8, 16: linear layers over group-quantised weights quantise their input to such integers
    )
    pooling: PoolingSpec | None = None  # of a `PoolingModel`
    stored: str = "none"  # the quantization method of the files
    implementation: str = "tenon"  # what runs it, in words
    mapped_bytes: int = 0  # of its weights, used where the files have them: page cache, which counts as free

    @property
    def whole_sequences(self) -> bool:
        """An encoder: nothing is kept between steps, so a sequence is computed in one."""
        return not self.kv_groups

    @property
    def state_bytes_per_slot(self) -> int:
        """Bytes of what all recurrent layers remember of one request; 0: there are none."""
        return sum(g.num_layers * sum(a.nbytes for a in g.arrays) for g in self.kv_groups)

    def group_of(self, layer: int) -> int:
        """The group of a layer: which view of a batch it is handed (`Batch.group`). Layers that keep a state
        have no block table: any view will do."""
        found = next(i for i, group in enumerate(self.kv_groups) if layer in group.layers)
        return 0 if self.kv_groups[found].kind == "state" else found


class Model(Protocol):
    """What the engine runs. Rows are independent: a row's bits do not depend on what else is in the batch.

    Shape letters: T tokens, D model width, S rows whose logits are wanted, V vocabulary.
    """

    spec: ModelSpec

    def kv_bytes_per_block(self, block_size: int) -> int:
        """Bytes that one block of `block_size` tokens takes in the whole cache."""
        ...

    def shorten(self, num_positions: int) -> None:
        """No position from there on will be asked for: tables of positions that were not made yet need not
        be longer."""
        ...

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        """The model's own cache, one per layer: what `forward` takes. `num_slots`: of recurrent states."""
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

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]: ...

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray: ...

    def states(self, hidden_TD: np.ndarray) -> np.ndarray:
        """states_TD float32 of what `forward` returned: what is pooled."""
        ...

    def head(self, pooled_RD: np.ndarray) -> np.ndarray:
        """vectors_RN float32 of pooled states, before normalisation or activation."""
        ...
