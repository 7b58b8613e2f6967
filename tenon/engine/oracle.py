"""A model without weights whose right answer is a pure function of the prompt: `load_format="oracle"`.

It keeps in every KV slot a number made of the token and position written there, and reads all slots of a
request's context back through the block table, as attention does. A stale, lost, foreign or reordered entry
anywhere changes the logits. So scheduler, prefix cache, preemption, chunking, aborts and the processes around
them are tested exactly, at the speed of the engine alone; and what a step costs without a model is measured.

For tests it has any groups of layers, one of each, all of them in the same memory: a layer of a bounded group
reads no more than it sees, and one that keeps a state makes a number of all tokens so far. Shape letters: T
tokens, S rows, V vocabulary, C context of one request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tenon.core.batch import Batch
from tenon.core.spec import KVGroup, ModelSpec, StateArray

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer

VOCAB = 260  # bytes, then four special tokens
BOS, EOS, START, END = 256, 257, 258, 259
MAX_POSITION = 4096

FULL = (KVGroup("full", 1, 1, 8),)
STATE = KVGroup("state", 1, arrays=(StateArray((2,)),))  # a uint64

_GOLDEN = 0x9E3779B97F4A7C15


def mix(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that spreads every bit: SplitMix64's finalizer (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def entries(tokens: np.ndarray, positions: np.ndarray, group: int = 0) -> np.ndarray:
    """What the slots of these tokens hold in the layer of a group, uint64."""
    salt = np.uint64((group + 1) * _GOLDEN % 2**64)
    return mix((positions.astype(np.uint64) << np.uint64(32)) + tokens.astype(np.uint64) + salt)


def chain(entry_C: np.ndarray, position_C: np.ndarray) -> np.ndarray:
    """uint64 [1 + C]: sums over the entries before each, and over all. What a token knows of the positions
    that it sees is the difference of two."""
    weight_C = 2 * position_C.astype(np.uint64) + np.uint64(1)
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix(entry_C * weight_C), dtype=np.uint64)])


def first_seen(group: KVGroup, positions_T: np.ndarray) -> np.ndarray:
    """int64 [T]: the first position that each token sees."""
    if not group.bounded:
        return np.zeros(len(positions_T), np.int64)
    return np.array([group.first_seen(p) for p in positions_T.tolist()], np.int64)


def recur(state: np.uint64, entry_T: np.ndarray) -> np.ndarray:
    """uint64 [T]: a state after each of the tokens that follow it: state = factor * (state + entry)."""
    factor, inverse = np.uint64(_GOLDEN), np.uint64(pow(_GOLDEN, -1, 2**64))
    power_T = np.cumprod(np.full(len(entry_T), factor))
    inverse_T = np.concatenate([np.ones(1, np.uint64), np.cumprod(np.full(len(entry_T) - 1, inverse))])
    return power_T * (state + np.cumsum(entry_T * inverse_T, dtype=np.uint64))


def together(chain_GT: list[np.ndarray]) -> np.ndarray:
    """uint64 [T]: what tokens know in all layers."""
    first_T, *others = chain_GT
    return first_T + sum((mix(other_T + np.uint64(1)) for other_T in others), np.zeros_like(first_T))


def logits_of(chain_S: np.ndarray, vocab: int) -> np.ndarray:
    """float32 [S, V] in [0, 8): every logit a hash of the row's chain and the token."""
    token_V = np.arange(vocab, dtype=np.uint64) * np.uint64(_GOLDEN)
    hashed_SV = mix(chain_S[:, None] + token_V)
    return (hashed_SV >> np.uint64(40)).astype(np.float32) * np.float32(8 / 2**24)


def pool_blocks(group: KVGroup, blocks: np.ndarray) -> np.ndarray:
    """Blocks of the pool, of those that a layer of the group counts: it has the first part of each."""
    assert not (blocks % group.parts).any(), f"not first parts of blocks: {blocks}"
    return blocks // group.parts


class OracleKV:
    """The cache of the only layer: one uint64 per slot, garbage until written."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.slots = mix(np.arange(num_blocks * block_size, dtype=np.uint64))


class Oracle:
    """The Model protocol, in numpy: there are no ops to record. `fail` is called with every batch, for tests
    that inject faults."""

    recordable = False

    def __init__(
        self,
        vocab: int = VOCAB,
        max_position: int = MAX_POSITION,
        eos: tuple[int, ...] = (EOS,),
        groups: tuple[KVGroup, ...] = FULL,
    ) -> None:
        self.spec = ModelSpec("oracle", vocab, max_position, groups, eos, "float32")
        self.fail: Any = None

    def kv_bytes_per_block(self, block_size: int) -> int:
        return 8 * block_size

    def shorten(self, num_positions: int) -> None:
        pass  # it has no tables

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        """All groups' blocks, and the slots of states."""
        return [OracleKV(num_blocks, block_size), mix(np.arange(num_slots, dtype=np.uint64))]

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        """Four float32 per token, each 16 bits of its chain."""
        if self.fail is not None:
            self.fail(batch)
        layer, state_S = kv
        chain_GT = [
            self._remember(batch, state_S, index)
            if group.kind == "state"
            else self._attend(batch.group(index), layer, index)
            for index, group in enumerate(self.spec.kv_groups)
        ]
        return together(chain_GT)[:, None].view(np.uint16).astype(np.float32)

    def _attend(self, batch: Batch, layer: OracleKV, index: int) -> np.ndarray:
        group, size = self.spec.kv_groups[index], layer.block_size
        block_T, offset_T = np.divmod(batch.slots_T, size)
        slot_T = pool_blocks(group, block_T) * size + offset_T
        layer.slots[slot_T] = entries(batch.token_ids_T, batch.positions_T, index)
        # All contexts behind each other, C: of each request what its first token sees, from a whole block on.
        count_R = np.diff(batch.query_start_R1)
        first_R = first_seen(group, batch.positions_T[batch.query_start_R1[:-1]]) // size * size
        length_R = batch.context_len_R - first_R
        begin_R = np.cumsum(length_R) - length_R
        row_C = np.repeat(np.arange(batch.num_requests), length_R)
        position_C = np.arange(len(row_C)) + np.repeat(first_R - begin_R, length_R)
        blocks_C = pool_blocks(group, batch.block_table_RB[row_C, position_C // size])
        chain_1C = chain(layer.slots[blocks_C * size + position_C % size], position_C)
        shift_T = np.repeat(begin_R - first_R, count_R)
        before_T = first_seen(group, batch.positions_T) + shift_T
        return chain_1C[batch.positions_T + shift_T + 1] - chain_1C[before_T]

    def _remember(self, batch: Batch, state_S: np.ndarray, index: int) -> np.ndarray:
        assert batch.state_in_R is not None and batch.state_out_R is not None
        entry_T = entries(batch.token_ids_T, batch.positions_T, index)
        states_T = np.empty(batch.num_tokens, np.uint64)
        for r in range(batch.num_requests):
            begin, end = batch.query_start_R1[r : r + 2]
            before = state_S[batch.state_in_R[r]] if batch.state_in_R[r] >= 0 else np.uint64(0)
            states_T[begin:end] = recur(before, entry_T[begin:end])
            state_S[batch.state_out_R[r]] = states_T[end - 1]
        return states_T

    def logits(self, hidden_SD: np.ndarray) -> np.ndarray:
        chain_S = np.ascontiguousarray(hidden_SD).astype(np.uint16).view(np.uint64)[:, 0]
        return logits_of(chain_S, self.spec.vocab_size)


def answer_logits(tokens: list[int], vocab: int = VOCAB, groups: tuple[KVGroup, ...] = FULL) -> np.ndarray:
    """float32 [C, V]: the right logits at every position of `tokens`, without engine or cache."""
    token_C, position_C = np.array(tokens, np.int32), np.arange(len(tokens))

    def known(index: int, group: KVGroup) -> np.ndarray:
        entry_C = entries(token_C, position_C, index)
        if group.kind == "state":
            return recur(np.uint64(0), entry_C)
        chain_1C = chain(entry_C, position_C)
        return chain_1C[position_C + 1] - chain_1C[first_seen(group, position_C)]

    return logits_of(together([known(i, group) for i, group in enumerate(groups)]), vocab)


CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tokenizer() -> Tokenizer:
    """One token per byte of UTF-8, and the special tokens."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as FastTokenizer

    from tenon.text.tokenizer import Tokenizer

    fast = FastTokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(_byte_letters())}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    names = ("<|bos|>", "<|eos|>", "<|start|>", "<|end|>")
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return Tokenizer(
        fast, bos_token_id=BOS, eos_token_ids=(EOS,), add_bos=True, chat_templates={"default": CHAT_TEMPLATE}
    )


def _byte_letters() -> list[str]:
    """The printable letter that byte-level BPE (Radford et al. 2019) writes for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]
