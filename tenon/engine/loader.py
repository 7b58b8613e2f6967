"""From engine configuration to an engine that can take requests: files, weights, KV cache, runner."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from tenon import ops
from tenon.cache.demand import Demand
from tenon.cache.groups import make_cache
from tenon.config import EngineConfig
from tenon.core.messages import Ready
from tenon.core.spec import Model, ModelSpec, PoolingModel
from tenon.engine.engine import Engine
from tenon.engine.guides import Guides
from tenon.engine.memory import asked_budget, describe_size, kv_budget, plan_blocks, plan_states
from tenon.engine.oracle import Oracle
from tenon.engine.passes import Limits, make_passes
from tenon.engine.pooling import PoolingEngine, PoolingRunner, StatesPass
from tenon.engine.prepare import EXAMPLE_LOGIT_ROWS, Preparer
from tenon.engine.runner import Runner
from tenon.engine.scheduler import Scheduler
from tenon.engine.table import Table
from tenon.engine.tokenizer import load_vocabulary
from tenon.errors import ConfigError
from tenon.grammar.compiler import Compiler
from tenon.grammar.masks import Masker
from tenon.ops import select
from tenon.sample.sampler import Sampler

log = logging.getLogger(__name__)


LOGIT_BYTES = 64 << 20  # of logits at once; see tenon.engine.runner

Progress = Callable[[int, int], None]  # bytes of weights: done, total
AnyModel = Model | PoolingModel


def load_engine(config: EngineConfig, progress: Progress | None = None) -> Engine:
    """Load model and cache. Raises the typed error of what is wrong (ModelNotFound, ConfigError ...)."""
    begin = time.monotonic()
    select.check()  # before the weights are read
    if config.num_threads is not None:
        ops.set_num_threads(config.num_threads)
    if config.load_format == "oracle":
        model: AnyModel = Oracle()
    else:
        model = _load_model(config, progress)
    return build_engine(model, config, begin)


def build_engine(model: AnyModel, config: EngineConfig, begin: float | None = None) -> Engine:
    """An engine around a model that is loaded. `begin` is when loading began (time.monotonic)."""
    begin = time.monotonic() if begin is None else begin
    spec = model.spec
    if config.max_model_len is not None and config.max_model_len > spec.max_position:
        raise ConfigError(
            f"max_model_len {config.max_model_len} is more than the model's {spec.max_position} positions"
        )
    size = _size_cache(model, config)
    num_blocks, max_model_len = size.num_blocks, size.max_model_len
    cache = make_cache(
        size.demand,
        num_blocks,
        num_slots=size.num_slots,
        prefix_caching=config.enable_prefix_caching,
        secret=secrets.token_bytes(32),
        context=(
            config.model,
            config.revision or "",
            spec.model_type,
            _activations(spec),
            config.quantization or "",
        ),
    )
    kv = model.kv_caches(num_blocks, config.block_size, size.num_slots)
    # An encoder's sequences are not cut: one of the greatest length fits into a step.
    whole_sequences = spec.whole_sequences
    if not whole_sequences:
        # Tables of positions are no part of what was planned: of ten million, as Llama 4 Scout has, they are
        # 5 GB; of those that the cache holds, a percent of it.
        cast("Model", model).shorten(max_model_len)
    max_tokens = max(config.max_num_batched_tokens, max_model_len * whole_sequences)
    scheduler = Scheduler(
        cache,
        max_num_batched_tokens=max_tokens,
        max_num_seqs=config.max_num_seqs,
        max_model_len=max_model_len,
        policy=config.scheduling_policy,
        whole_sequences=whole_sequences,
    )
    table = Table(config.max_num_seqs, size.demand.blocks_for(max_model_len), size.demand.groups)
    preparer = Preparer(
        table,
        max_tokens=max_tokens,
        max_num_seqs=config.max_num_seqs,
        block_size=config.block_size,
        stateful=size.demand.stateful,
    )
    slice_rows = max(EXAMPLE_LOGIT_ROWS, LOGIT_BYTES // (4 * spec.vocab_size))
    limits = Limits(preparer.max_tokens, preparer.max_num_seqs, slice_rows)
    ready = Ready(
        max_model_len=max_model_len,
        num_kv_blocks=num_blocks,
        block_size=config.block_size,
        vocab_size=spec.vocab_size,
        load_seconds=0.0,
        eos_token_ids=tuple(spec.eos_token_ids),
        pooling=spec.pooling,
        info={
            "model_type": spec.model_type,
            "implementation": spec.implementation,
            "dtype": spec.dtype,
            "activations": _activations(spec),
            "quantization": config.quantization or f"as in the files ({spec.stored})",
            "kv_cache_bytes": size.num_bytes,
        },
    )
    if spec.implementation == "tenon":
        ready.info["weights"] = _weights(spec)
    guides = Guides(Compiler(partial(load_vocabulary, config, spec)))
    engine: Engine
    if spec.pooling is not None:
        states_pass = StatesPass(cast("PoolingModel", model), kv, limits, preparer.example())
        pooling_runner = PoolingRunner(cast("PoolingModel", model), states_pass)
        engine = PoolingEngine(scheduler, table, preparer, pooling_runner, guides, ready)  # type: ignore[arg-type]
        how = states_pass.how
        ready.info |= {
            "task": spec.pooling.task,
            "pooling": spec.pooling.pooling,
            "width": spec.pooling.width,
        }
    else:
        passes = make_passes(cast("Model", model), kv, limits, preparer.example())
        sampler = Sampler(table, spec.vocab_size)
        runner = Runner(cast("Model", model), passes, sampler, Masker(spec.vocab_size), slice_rows)
        engine, how = Engine(scheduler, table, preparer, runner, guides, ready), passes.how
    ready.info["forward_pass"] = how
    ready.load_seconds = time.monotonic() - begin
    return engine


def _load_model(config: EngineConfig, progress: Progress | None) -> AnyModel:
    from tenon.models import load_model
    from tenon.resolve import resolve

    files = resolve(config.model, config.revision)
    return load_model(
        files,
        config.dtype,
        activations=config.activations,
        quantization=config.quantization,
        max_model_len=config.max_model_len,
        convert=config.convert,
        pooler=config.pooler,
        model_impl=config.model_impl,
        in_place=config.load_format != "pack",
        progress=progress,
    )


def _activations(spec: ModelSpec) -> str:
    """What linear layers multiply with, in words."""
    if not spec.act_bits:
        return spec.dtype
    return f"int{spec.act_bits} where weights are quantised in groups, else {spec.dtype}"


def _weights(spec: ModelSpec) -> str:
    """Where they are, in words."""
    if not spec.mapped_bytes:
        return "in memory of their own"
    return f"{describe_size(spec.mapped_bytes)} in the mapped files, used where they are"


@dataclass(frozen=True, slots=True)
class CacheSize:
    demand: Demand
    max_model_len: int
    num_blocks: int = 0
    num_slots: int = 0  # of recurrent states
    num_bytes: int = 0


def _size_cache(model: AnyModel, config: EngineConfig) -> CacheSize:
    spec = model.spec
    demand = Demand(spec.kv_groups, config.block_size, config.max_num_batched_tokens)
    if spec.whole_sequences:
        return CacheSize(demand, config.max_model_len or spec.max_position)
    if config.kv_cache_memory is None:
        budget = kv_budget(reserved=spec.mapped_bytes)
        source = "from free memory, as no --kv-cache-memory is given"
    else:
        budget, source = asked_budget(config.kv_cache_memory), "as kv_cache_memory allows"
    num_slots = _num_states(spec, budget, config.max_num_seqs)
    states = num_slots * spec.state_bytes_per_slot
    bytes_per_block = model.kv_bytes_per_block(config.block_size)
    num_blocks, max_model_len = plan_blocks(
        budget=budget - states,
        bytes_per_block=bytes_per_block,
        demand=demand,
        model_len=spec.max_position,
        wanted_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
    )
    if max_model_len < (config.max_model_len or spec.max_position):
        log.warning("memory for the KV cache limits max_model_len to %d tokens", max_model_len)
    size = CacheSize(demand, max_model_len, num_blocks, num_slots, states + num_blocks * bytes_per_block)
    log.info(
        "KV cache: %s, %d blocks of %d tokens%s, %s",
        describe_size(size.num_bytes),
        num_blocks,
        config.block_size,
        f", {num_slots} states" if num_slots else "",
        source,
    )
    return size


def _num_states(spec: ModelSpec, budget: int, max_num_seqs: int) -> int:
    """Slots of recurrent state, if the model has layers that keep one."""
    if not spec.state_bytes_per_slot:
        return 0
    num_slots = plan_states(
        budget=budget, bytes_per_slot=spec.state_bytes_per_slot, max_num_seqs=max_num_seqs
    )
    if num_slots < max_num_seqs:
        log.warning("memory for recurrent states lets %d requests run at a time", num_slots)
    return num_slots
