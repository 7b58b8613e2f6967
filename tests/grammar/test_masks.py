import random
from types import SimpleNamespace

import numpy as np

from tenon.grammar.masks import Masker, Masks


class Stub:
    """A guide that allows one token, or everything."""

    def __init__(self, token: int | None) -> None:
        self.token = token
        self.followed: list[int] = []

    def follow(self, tokens: list[int]) -> None:
        self.followed = list(tokens)

    def fill(self, mask_W: np.ndarray) -> bool:
        if self.token is None:
            return False
        mask_W[:] = 0
        mask_W.view(np.uint32)[self.token // 32] = 1 << self.token % 32
        return True


def test_masks_of_guided_requests_and_their_slices(seed):
    rng = random.Random(seed)
    masker = Masker(100)
    assert masker.begin([SimpleNamespace(guide=None, tokens=[])]) is None
    for _ in range(20):
        guides = [rng.choice([None, Stub(None), Stub(rng.randrange(96))]) for _ in range(rng.randint(1, 40))]
        requests = [SimpleNamespace(guide=guide, tokens=[i]) for i, guide in enumerate(guides)]
        started = masker.begin(requests)
        if started is None:
            assert not any(guides)
            continue
        masks = started.result()
        masked = [i for i, guide in enumerate(guides) if guide and guide.token is not None]
        assert masks.rows_M.tolist() == masked
        for row, mask_W in zip(masked, masks.mask_MW, strict=True):
            assert mask_W[guides[row].token // 32].view(np.uint32) == 1 << guides[row].token % 32
        assert all(guide.followed == [i] for i, guide in enumerate(guides) if guide)
        check_slices(masks, len(guides), rng.randint(1, 7))


def check_slices(masks: Masks, count: int, size: int) -> None:
    rows, parts = [], []
    for begin in range(0, count, size):
        part = masks.slice(begin, begin + size)
        rows += (part.rows_M + begin).tolist()
        parts.append(part.mask_MW)
    assert rows == masks.rows_M.tolist()
    assert np.array_equal(np.concatenate(parts), masks.mask_MW)
