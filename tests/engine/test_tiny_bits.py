"""A request's bits do not depend on its surroundings: on a tiny random model, in all types of activations, on
every instruction set, and with everything that can change at once. tests/e2e/test_same_bits.py does more,
one thing at a time, on the default model.
"""

from __future__ import annotations

import contextlib
import random
import unittest.mock
from collections.abc import Iterator

import msgspec
import pytest

from tenon.cache.demand import Demand
from tenon.config import EngineArgs
from tenon.engine.loader import build_engine
from tenon.kernels import cpu
from tenon.models import load_model
from tenon.resolve import resolve
from tests.conftest import new_seed
from tests.engine.recorder import Recorder, Trace, check, make_requests
from tests.models.families import Type, make, save_fp8, save_gguf, save_safetensors, tiny

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native

FAMILIES = [
    "llama",
    "qwen2_moe",
    "glm4_moe",
    "deepseek_v3",
    "gemma3",
    "deepseek_v32",
    "longcat_flash",
    "gemma4",
    "minicpm",
    "gpt_oss",
    "llama4",
    "qwen3_next",
    "granitemoehybrid",
]
# Those of floats have no GGUF; minicpm's has no sparse attention, which begins at 200 tokens here.
PARTS = {
    "deepseek_v32": ("float32", "bfloat16"),
    "longcat_flash": ("float32", "bfloat16"),
    "gemma4": ("float32", "bfloat16"),
    "minicpm": ("float32", "bfloat16"),
    "llama4": ("bfloat16", "int16"),
    "granitemoehybrid": ("float32", "int16"),
}
VOCAB = 160
STATES = 12  # slots: for the requests of a test, and few snapshots
LENGTHS = [1, 31, 65, 257, 400]  # around the sizes of blocks and of attention's steps
TYPES = {
    "attn_q": Type.Q4_0,
    "attn_v": Type.Q8_0,
    "ffn": Type.Q4_1,
    "token_embd": Type.Q5_0,
    "output": Type.F32,
}
MODES = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"activations": "bfloat16"},
    "int8": {"activations": "int8"},
    "int16": {"activations": "int16"},
}
FP8 = ("deepseek_v3", "fp8")


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = _native.num_threads()
    _native.set_num_threads(count)
    try:
        yield
    finally:
        _native.set_num_threads(before)


class Setting:
    """A model's files, its requests, and what each is answered with alone, on one thread."""

    def __init__(self, family: str, model: str, mode: str, rng: random.Random) -> None:
        self.args = {"model": model, **MODES.get(mode, {"activations": "bfloat16"})}
        self.requests = make_requests(rng, LENGTHS, VOCAB)
        with threads(1):
            recorder = self.load(enable_prefix_caching=False)
            self.alone: dict[str, Trace] = {}
            for add in self.requests:
                self.alone |= recorder.run([add])

    def load(self, *, tight: bool = False, **args) -> Recorder:
        """`tight`: with room for the long prompt beside three others as they are, but not as they will be."""
        mode = self.args.get("activations")
        args = {"max_num_seqs": 16, "max_model_len": 448, **args}
        config = EngineArgs(**self.args, **args).resolve()
        model = load_model(resolve(config.model), config.dtype, activations=config.activations)
        demand = Demand(model.spec.kv_groups, 32, config.max_num_batched_tokens)
        num_blocks = demand.blocks(257) + 6 * len(demand.groups) if tight else 64 * len(demand.groups)
        memory = num_blocks * model.kv_bytes_per_block(32) + STATES * model.spec.state_bytes_per_slot
        config = msgspec.structs.replace(config, kv_cache_memory=memory)
        with unittest.mock.patch("tenon.engine.loader.plan_states", return_value=STATES):
            recorder = Recorder(build_engine(model, config))
        assert recorder.engine.ready.num_kv_blocks == num_blocks
        assert recorder.engine.runner.model.spec.act_bits == {"int8": 8, "int16": 16}.get(mode, 0)
        return recorder


@pytest.fixture(scope="module")
def shared_seed() -> int:
    return new_seed()


@pytest.fixture(
    scope="module",
    params=[(family, mode) for family in FAMILIES for mode in PARTS.get(family, MODES)] + [FP8],
    ids="-".join,
)
def one_setting(request, tmp_path_factory, shared_seed) -> Setting:
    family, mode = request.param
    model, path = make(tiny(family), shared_seed), tmp_path_factory.mktemp("tiny")
    if mode in ("int8", "int16"):
        path /= "mixed.gguf"
        types = {"exps": Type.MXFP4, **TYPES} if family == "gpt_oss" else TYPES
        save_gguf(model, path, lambda name: next((types[part] for part in types if part in name), Type.Q8_0))
    elif mode == "fp8":
        save_fp8(model, path)
    else:
        save_safetensors(model, path)
    return Setting(family, str(path), mode, random.Random(shared_seed))


@pytest.fixture
def setting(one_setting, shared_seed) -> Setting:
    print(f"TENON_TEST_SEED={shared_seed}")  # for each test that fails
    return one_setting


@pytest.mark.parametrize("isa", cpu.variants())
def test_on_every_instruction_set(isa, setting):
    with cpu.variant(isa):
        check(setting.load().run(setting.requests), setting.alone)


def test_everything_at_once(setting, shared_seed):
    """Chunks of 7 tokens, two threads, and few blocks: others grow until the long prompt, which goes in
    slowly, must give its blocks back. Then all again, with what is left in the prefix cache."""
    if _native.max_threads() < 2:
        pytest.skip("this machine has one core")
    others = make_requests(random.Random(shared_seed + 1), [16] * 3, VOCAB, "other", max_tokens=60)
    mine = [setting.requests[3], *setting.requests[:3]]
    alone = {add.request_id: setting.alone[add.request_id] for add in mine}
    with threads(2):
        recorder = setting.load(tight=True, max_num_batched_tokens=7)
        check(recorder.run(others + mine), alone)
        assert recorder.engine.stats().num_preemptions > 0
        check(recorder.run(others + mine), alone)
        for _ in range(2):
            check(recorder.run(mine[:1]), {mine[0].request_id: alone[mine[0].request_id]})
        assert recorder.engine.stats().prefix_cache_hits > 0
