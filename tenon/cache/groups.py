"""Block tables of one kind of cache. What a sliding window or a recurrent state does otherwise, goes here.

The scheduler asks a group five things: `match` a new request against the prefix cache, `admit` it, `grow` it,
`commit` what a step fills, `release` it. It never touches blocks itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tenon.cache.blocks import BlockPool
from tenon.cache.prefix import Entry, PrefixCache
from tenon.core.request import Request
from tenon.core.spec import KVGroup
from tenon.errors import UnsupportedModel
from tenon.util.failpoint import failpoint


class FullAttention:
    """Every token's K/V is kept for as long as the request runs."""

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        *,
        prefix_caching: bool,
        secret: bytes,
        context: Sequence[str] = (),
    ) -> None:
        self.block_size = block_size
        self._num_blocks = num_blocks
        self._prefix_caching = prefix_caching
        self._secret, self._context = secret, context
        self.rebuild()
        self.num_queried = 0  # tokens looked up in the prefix cache
        self.num_hit = 0  # tokens found

    def rebuild(self) -> None:
        """All blocks are free and without content, whatever was before: no request may hold any."""
        self.pool = BlockPool(self._num_blocks)
        self.prefix = None
        if self._prefix_caching:
            self.prefix = PrefixCache(self.pool, self.block_size, self._secret, self._context)

    @property
    def capacity(self) -> int:
        """Tokens that fit when one request has everything."""
        return self.pool.num_blocks * self.block_size

    def match(self, request: Request) -> list[Entry]:
        """Cached blocks that `request` can start from: never all of its tokens, the last must be computed."""
        if self.prefix is None or request.needs_whole_prompt:
            return []
        full = (len(request.tokens) - 1) // self.block_size
        root = self.prefix.root(request.cache_salt)
        self.prefix.extend_keys(request.block_keys, root, request.tokens, full)
        return self.prefix.match(request.block_keys[:full], root)

    def admit(self, request: Request, found: list[Entry], reserve: int) -> bool:
        """Give `request` the found blocks and new ones for the rest of its tokens; sets `num_computed`.

        False, and no change, unless `reserve` blocks stay free for those that run already.
        """
        assert not request.blocks
        failpoint("alloc", request)
        pool = self.pool
        new = self.blocks_for(len(request.tokens)) - len(found)
        idle = sum(pool.is_idle(entry.block) for entry in found)
        if new + idle + reserve > pool.num_free:
            return False
        for entry in found:
            pool.hold(entry.block)
        blocks = pool.allocate(new)
        assert blocks is not None
        request.blocks = [entry.block for entry in found] + blocks
        request.chain = list(found)
        request.num_computed = len(found) * self.block_size
        if request.num_cached < 0:  # what a preempted request finds again is its own
            request.num_cached = request.num_computed
            if self.prefix is not None:
                self.num_queried += len(request.tokens)
                self.num_hit += request.num_computed
        return True

    def grow(self, request: Request, num_tokens: int) -> bool:
        """Make room for `num_tokens` tokens in all. False, and no change, if blocks have run out."""
        missing = self.blocks_for(num_tokens) - len(request.blocks)
        if missing <= 0:
            return True
        failpoint("alloc", request)
        blocks = self.pool.allocate(missing)
        if blocks is None:
            return False
        request.blocks += blocks
        return True

    def commit(self, request: Request, num_tokens: int) -> list[int]:
        """Once a step has filled `num_tokens` tokens, full blocks are shared. Returns those that are new.

        May be called before the step runs: within a step all K/V of a layer is written before any is read.
        """
        full = num_tokens // self.block_size
        if self.prefix is None or full <= len(request.chain):
            return []
        root = self.prefix.root(request.cache_salt)
        self.prefix.extend_keys(request.block_keys, root, request.tokens, full)
        fresh = []
        for i in range(len(request.chain), full):
            parent = request.chain[-1] if request.chain else root
            entry = self.prefix.insert(request.block_keys[i], parent, request.blocks[i])
            request.chain.append(entry)
            if entry.block == request.blocks[i]:
                fresh.append(entry.block)
        return fresh

    def forget(self, blocks: Iterable[int]) -> None:
        """The step that was to fill these blocks failed."""
        if self.prefix is not None:
            for block in blocks:
                self.prefix.forget(block)

    def release(self, request: Request) -> None:
        """Take all blocks back; whoever comes later may find their content."""
        self.pool.release(request.blocks)
        request.blocks = []
        request.chain = []
        request.num_computed = 0

    def reset(self) -> None:
        """Empty the prefix cache."""
        if self.prefix is not None:
            self.prefix.forget_all()

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Assert every invariant, given all requests of the engine."""
        self.pool.check_integrity([request.blocks for request in requests])
        if self.prefix is not None:
            self.prefix.check_integrity()


class NoCache:
    """Encoders keep nothing: the same five answers, without blocks."""

    def __init__(self, block_size: int) -> None:
        self.pool = BlockPool(0)
        self.block_size = block_size
        self.capacity = 2**31 - 1
        self.num_queried = self.num_hit = 0

    def rebuild(self) -> None:
        pass

    def match(self, request: Request) -> list[Entry]:
        return []

    def admit(self, request: Request, found: list[Entry], reserve: int) -> bool:
        request.num_cached = 0
        return True

    def grow(self, request: Request, num_tokens: int) -> bool:
        return True

    def commit(self, request: Request, num_tokens: int) -> list[int]:
        return []

    def forget(self, blocks: Iterable[int]) -> None:
        pass

    def release(self, request: Request) -> None:
        request.num_computed = 0

    def reset(self) -> None:
        pass

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def check_integrity(self, requests: Iterable[Request]) -> None:
        assert all(not request.blocks for request in requests)


CacheGroup = FullAttention | NoCache


def make_group(
    groups: Sequence[KVGroup],
    num_blocks: int,
    block_size: int,
    *,
    prefix_caching: bool,
    secret: bytes,
    context: Sequence[str] = (),
) -> CacheGroup:
    """Block tables for what a model declares. Raises UnsupportedModel for a kind that there is none for."""
    if not groups:
        return NoCache(block_size)
    kinds = [group.kind for group in groups]
    if kinds not in (["full"], ["latent"]):
        raise UnsupportedModel(f"KV cache groups {kinds} are not supported, only one of kind full or latent")
    return FullAttention(
        num_blocks, block_size, prefix_caching=prefix_caching, secret=secret, context=context
    )
