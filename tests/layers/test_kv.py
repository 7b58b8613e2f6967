"""What a model says its cache takes is what it takes."""

import numpy as np
import pytest

from tenon.core.spec import KVGroup, ModelSpec
from tenon.layers import kv
from tenon.ops import select


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bytes_per_block_is_what_the_caches_take(dtype):
    spec = ModelSpec("x", 10, 64, (KVGroup("full", 3, 2, 64), KVGroup("full", 1, 1, 128)), (), dtype)
    with select.forced("reference"):
        caches = kv.caches(spec, num_blocks=5, block_size=32)
        assert len(caches) == 4
        arrays = [a for cache in caches for a in vars(cache).values() if isinstance(a, np.ndarray)]
        assert sum(a.nbytes for a in arrays) == 5 * kv.bytes_per_block(spec, 32)
