"""Recorded passes own what their plans point into."""

import gc
import weakref

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.engine.passes import Limits, ReplayedPasses
from tenon.ops.arrays import FLOAT32


class OneNorm:
    """The least model: one op."""

    weight_D = np.ones(16, np.float32)
    x_TD = np.ones((8, 16), np.float32)

    def forward(self, batch, kv):
        return ops.rms_norm(self.x_TD[: batch.num_tokens], self.weight_D, 1e-5, FLOAT32)

    def logits(self, hidden_SD):
        return ops.rms_norm(hidden_SD, self.weight_D, 1e-5, FLOAT32)


class Cache:
    pass


def test_plans_keep_the_model_and_its_cache_alive():
    ints = np.zeros(16, np.int32)
    example = Batch(ints[:5], ints[:5], ints[:5], ints[:4], ints[:3], ints[:3, None], ints[:2])
    model, cache = OneNorm(), Cache()
    kept = weakref.ref(model), weakref.ref(cache)
    passes = ReplayedPasses(model, [cache], Limits(8, 8, 8), example)
    del model, cache
    gc.collect()
    assert all(reference() is not None for reference in kept)
    del passes
    gc.collect()
    assert all(reference() is None for reference in kept)
