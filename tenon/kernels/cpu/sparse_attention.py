"""Attention to a few blocks that each token chooses, on the CPU.

The attention kernel does the work: what a token's group of heads attends to is handed to it as a request of
its own, with a block table of the chosen blocks. A block of the cache that holds G heads is, to it, G blocks
of one head. Requests that are short in all of their tokens go to it as they are.
"""

from __future__ import annotations

import numpy as np

from tenon.core.batch import Batch
from tenon.kernels.cpu import _native
from tenon.kernels.cpu.kv import PairedKV
from tenon.kernels.cpu.memory import address, dense, row_stride
from tenon.ops.arrays import BFLOAT16
from tenon.ops.sparse_attention import SparseKV, Sparsity
from tenon.ops.workspace import empty


def sparse_attention(
    q_TX: np.ndarray,
    cache: SparseKV,
    batch: Batch,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    sparsity: Sparsity,
) -> np.ndarray:
    kv = cache.kv
    assert isinstance(kv, PairedKV)
    tokens, requests, is_bf16 = len(q_TX), batch.num_requests, kv.act == BFLOAT16
    _native.sum_keys(
        address(kv.k),
        address(cache.sums),
        dense(batch.positions_T, np.int32),
        dense(batch.slots_T, np.int32),
        tokens,
        num_kv_heads,
        head_dim,
        kv.block_size,
        sparsity.stride,
        is_bf16,
    )
    most = max(sparsity.dense_len, sparsity.top_blocks * sparsity.block)
    width = min(-(-most // kv.block_size), batch.block_table_RB.shape[1])
    tables = empty((tokens, num_kv_heads * width), np.int32)
    contexts = empty((tokens, num_kv_heads), np.int32)
    starts = empty((tokens, 2 * num_kv_heads), np.int32)  # one more than T * G
    plain_len_R = empty((requests,), np.int32)
    found_R2 = empty((requests, 2), np.int32)  # its first row is used
    _native.select_blocks(
        dense(q_TX, kv.act),
        address(cache.sums),
        dense(batch.query_start_R1, np.int32),
        dense(batch.context_len_R, np.int32),
        address(batch.block_table_RB),
        row_stride(batch.block_table_RB),
        requests,
        address(starts),
        address(contexts),
        address(tables),
        address(plain_len_R),
        address(found_R2),
        width,
        num_heads,
        num_kv_heads,
        head_dim,
        kv.block_size,
        sparsity.stride,
        sparsity.block,
        sparsity.init_blocks,
        sparsity.local_blocks,
        sparsity.top_blocks,
        sparsity.dense_len,
        scale,
        is_bf16,
    )
    o_TX, sparse_TX = empty(q_TX.shape, kv.act), empty(q_TX.shape, kv.act)
    shape = (num_heads, num_kv_heads, head_dim)
    plain = (batch.query_start_R1, plain_len_R, batch.block_table_RB)
    _attend(q_TX, o_TX, kv, plain, address(found_R2), shape, scale)
    shape = (num_heads // num_kv_heads, 1, head_dim)
    chosen = (starts, contexts, tables.reshape(tokens * num_kv_heads, width))
    _attend(q_TX, sparse_TX, kv, chosen, address(found_R2) + found_R2.itemsize, shape, scale)
    _native.take_sparse(
        address(o_TX),
        address(sparse_TX),
        dense(batch.query_start_R1, np.int32),
        dense(batch.context_len_R, np.int32),
        requests,
        q_TX.shape[1] * kv.act.itemsize,
        sparsity.dense_len,
    )
    return o_TX


def _attend(
    q_TX: np.ndarray,
    o_TX: np.ndarray,
    kv: PairedKV,
    requests: tuple[np.ndarray, np.ndarray, np.ndarray],
    found: int,
    shape: tuple[int, int, int],
    scale: float,
) -> None:
    """Plain attention of requests, given as (starts, contexts, block tables), whose number is at `found`."""
    starts, contexts, tables = requests
    num_heads, num_kv_heads, head_dim = shape
    _native.attention(
        address(q_TX),
        address(o_TX),
        address(kv.k),
        address(kv.v),
        address(starts),
        address(contexts),
        address(tables),
        row_stride(tables),
        len(contexts),
        0,
        num_heads,
        num_kv_heads,
        head_dim,
        kv.block_size,
        0,
        0,
        scale,
        kv.act == BFLOAT16,
        found,
    )
