"""Block tables of a model's groups of layers. What bounds a group, or recurrent state, makes different, goes
here.

The scheduler asks five things: `match` a new request against the prefix cache, `admit` it, `grow` it,
`commit` what a step fills, `release` it. It never touches blocks itself.

All groups take blocks from one pool, and a block serves any of them. A bounded group gives back blocks that
no later token sees when it grows, and at admission is given no more than it ever holds at a time. A prefix is
found as far as every group has what later tokens see of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from tenon.cache.blocks import BlockPool
from tenon.cache.demand import ENDLESS, Demand
from tenon.cache.prefix import Entry, PrefixCache
from tenon.cache.states import StateSlots
from tenon.core.request import Request
from tenon.errors import UnsupportedModel
from tenon.util.failpoint import failpoint

GONE = -1  # in a request's list: the block was given back


class KVCache:
    """Blocks of all groups, and slots of states if the model keeps such."""

    def __init__(
        self,
        demand: Demand,
        num_blocks: int,
        *,
        prefix_caching: bool,
        secret: bytes,
        context: Sequence[str] = (),
        num_slots: int = 0,
    ) -> None:
        self.demand = demand
        self.groups = demand.groups
        self.block_size = demand.block_size
        self.capacity = demand.tokens(num_blocks)  # tokens that fit when one request has everything
        self._num_blocks, self._num_slots = num_blocks, num_slots
        self._prefix_caching = prefix_caching
        self._secret, self._context = secret, context
        self.rebuild()
        self.num_queried = 0  # tokens looked up in the prefix cache
        self.num_hit = 0  # tokens found

    def rebuild(self) -> None:
        """All blocks are free and without content, whatever was before: no request may hold any."""
        self.pool = BlockPool(self._num_blocks)
        slots = BlockPool(self._num_slots) if self.demand.stateful else None
        self.prefix = None
        if self._prefix_caching:
            self.prefix = PrefixCache(
                self.pool,
                self.block_size,
                self._secret,
                self._context,
                num_groups=len(self.groups),
                slots=slots,
            )
        self.states = None if slots is None else StateSlots(slots, self.block_size, self.prefix)

    def match(self, request: Request) -> list[Entry]:
        """Cached blocks that `request` can start from: never all of its tokens, the last must be computed."""
        if self.prefix is None or request.needs_whole_prompt:
            return []
        full = (len(request.tokens) - 1) // self.block_size
        root = self.prefix.root(request.cache_salt)
        self.prefix.extend_keys(request.block_keys, root, request.tokens, full)
        all_bounded = len(self.demand.bounded) == len(self.groups)
        found = self.prefix.match(request.block_keys[:full], root, over_gaps=all_bounded)
        if self.states is None and len(self.groups) == 1 and not all_bounded:
            return found
        found = self._usable(found)
        request.branch = len(found) * self.block_size
        return found if self.states is None else self._usable(found, with_state=True)

    def _usable(self, found: list[Entry], with_state: bool = False) -> list[Entry]:
        """The longest start of `found` that all groups can go on from."""
        whole = [group for group in range(len(self.groups)) if group not in self.demand.bounded]
        gaps = (i for i, entry in enumerate(found) if any(entry.blocks[group] < 0 for group in whole))
        count = next(gaps, len(found))
        while count:
            no_state = with_state and found[count - 1].state < 0
            missing = count - 1 if no_state else self._last_missing(found, count)
            if missing < 0:
                break
            count = missing
        return found[:count]

    def _last_missing(self, found: list[Entry], count: int) -> int:
        """The last of `count` entries without a block that a token behind them sees, of bounded groups; -1:
        there is none."""
        for group in self.demand.bounded:
            first = self.demand.first(group, count * self.block_size)
            for index in range(count - 1, first - 1, -1):
                if found[index].blocks[group] < 0:
                    return index
        return -1

    def admit(self, request: Request, found: list[Entry], reserve: int) -> bool:
        """Give `request` the found blocks and new ones for the rest of its tokens; sets `num_computed`.

        False, and no change, unless in each group `reserve` blocks stay free for those that run already.
        """
        assert not request.blocks
        failpoint("alloc", request)
        computed = len(found) * self.block_size
        firsts = [self.demand.first(group, computed) for group in range(len(self.groups))]
        counts = [
            self.demand.stop(group, computed, len(request.tokens)) - len(found)
            for group in range(len(self.groups))
        ]
        shared = [[entry.blocks[group] for entry in found[first:]] for group, first in enumerate(firsts)]
        idle = sum(self.pool.is_idle(block) for blocks in shared for block in blocks)
        if sum(counts) + idle + reserve * len(counts) > self.pool.num_free:
            return False
        if self.states is not None and not self.states.admit(request, found[-1].state if found else -1):
            return False
        for blocks in shared:
            for block in blocks:
                self.pool.hold(block)
        request.blocks = [[GONE] * first + blocks for first, blocks in zip(firsts, shared, strict=True)]
        request.gone = firsts
        self._allocate(request, counts)
        request.chain = list(found)
        request.num_computed = computed
        request.room = self._room(request)
        self._count(request)
        return True

    def _count(self, request: Request) -> None:
        """What was found, at the first admission: what a preempted request finds again is its own."""
        if request.num_cached < 0:
            request.num_cached = request.num_computed
            if self.prefix is not None:
                self.num_queried += len(request.tokens)
                self.num_hit += request.num_computed

    def grow(self, request: Request, num_tokens: int) -> bool:
        """Make room for `num_tokens` tokens in all, and give back what no later token sees. False, and no
        more blocks, if there is not enough."""
        self._give_back(request)
        needed = self.demand.blocks_for(num_tokens)
        counts = [max(0, needed - len(blocks)) for blocks in request.blocks]
        if any(counts):
            failpoint("alloc", request)
            if not self._allocate(request, counts):
                return False
        if self.states is not None and not self.states.go_on(request):
            return False
        request.room = self._room(request)
        return True

    def _allocate(self, request: Request, counts: list[int]) -> bool:
        """So many more blocks for each group. False, and no change, if they have run out."""
        new = self.pool.allocate(sum(counts))
        if new is None:
            return False
        for blocks, count in zip(request.blocks, counts, strict=True):
            blocks += new[:count]
            del new[:count]
        return True

    def _give_back(self, request: Request) -> None:
        """Blocks that no token from the next one on sees."""
        for group in self.demand.bounded:
            blocks, first = request.blocks[group], request.gone[group]
            stop = self.demand.first(group, request.num_computed)
            if stop > first:
                self.pool.release(blocks[first:stop])
                blocks[first:stop] = [GONE] * (stop - first)
                request.gone[group] = stop

    def _room(self, request: Request) -> int:
        """Up to how many tokens nothing is to be taken or given back."""
        room = min(len(blocks) for blocks in request.blocks) * self.block_size
        for group in self.demand.bounded:
            last = (request.gone[group] + 1) * self.block_size - 1
            room = min(room, self.groups[group].unseen_from(last))
        return room

    def cut(self, request: Request, num_tokens: int) -> int:
        """Fewer tokens for a step of a prompt, if it then ends where a snapshot of states is of use: where
        others went on in another way, at its last full block, else at the end of any block."""
        if self.states is None or self.prefix is None:
            return num_tokens
        start, size = request.num_computed, self.block_size
        end = start + num_tokens
        for stop in sorted([request.branch, (len(request.tokens) - 1) // size * size, end // size * size]):
            if start < stop <= end:
                return stop - start
        return num_tokens

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
            blocks = [of_group[i] for of_group in request.blocks]
            entry = self.prefix.insert(request.block_keys[i], parent, blocks)
            request.chain.append(entry)
            fresh += [block for block in entry.blocks if block in blocks]
        return fresh

    def forget(self, blocks: Iterable[int]) -> None:
        """The step that was to fill these blocks failed."""
        if self.prefix is not None:
            for block in blocks:
                self.prefix.forget(block)

    def settle(self, requests: Iterable[Request]) -> None:
        """A step has run, of these requests."""
        if self.states is not None:
            for request in requests:
                self.states.settle(request)

    def release(self, request: Request) -> None:
        """Take all blocks back; whoever comes later may find their content."""
        self.pool.release(_in_order(request))
        if self.states is not None:
            self.states.release(request)
        request.lose_cache()

    def reset(self) -> None:
        """Empty the prefix cache."""
        if self.prefix is not None:
            self.prefix.forget_all()

    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Assert every invariant, given all requests of the engine."""
        requests = list(requests)
        for request in requests:
            self._check(request)
        self.pool.check_integrity([_in_order(request) for request in requests])
        if self.prefix is not None:
            self.prefix.check_integrity()
        if self.states is not None:
            self.states.check_integrity(requests)

    def _check(self, request: Request) -> None:
        """What one holds covers what its next token sees, and is bounded."""
        if not request.blocks:
            assert request.num_computed == request.room == 0
            return
        assert len(request.blocks) == len(request.gone) == len(self.groups)
        for group, (blocks, gone) in enumerate(zip(request.blocks, request.gone, strict=True)):
            assert request.num_computed <= len(blocks) * self.block_size
            assert gone <= self.demand.first(group, request.num_computed)
            assert blocks[:gone] == [GONE] * gone
            assert min(blocks[gone:], default=0) >= 0
            assert len(blocks) - gone <= self.demand.peaks[group]


def _in_order(request: Request) -> Sequence[int]:
    """All blocks that a request holds, in order of position."""
    if len(request.blocks) == 1:
        return request.blocks[0][request.gone[0] :]
    rows = zip_longest(*request.blocks, fillvalue=GONE)
    return [block for row in rows for block in row if block >= 0]


class NoCache:
    """Encoders keep nothing: the same answers, without blocks."""

    def __init__(self, block_size: int) -> None:
        self.pool = BlockPool(0)
        self.block_size = block_size
        self.capacity = ENDLESS
        self.num_queried = self.num_hit = 0

    def rebuild(self) -> None:
        pass

    def match(self, request: Request) -> list[Entry]:
        return []

    def admit(self, request: Request, found: list[Entry], reserve: int) -> bool:
        request.num_cached = 0
        request.room = ENDLESS
        return True

    def grow(self, request: Request, num_tokens: int) -> bool:
        return True

    def cut(self, request: Request, num_tokens: int) -> int:
        return num_tokens

    def commit(self, request: Request, num_tokens: int) -> list[int]:
        return []

    def forget(self, blocks: Iterable[int]) -> None:
        pass

    def settle(self, requests: Iterable[Request]) -> None:
        pass

    def release(self, request: Request) -> None:
        request.lose_cache()

    def reset(self) -> None:
        pass

    def check_integrity(self, requests: Iterable[Request]) -> None:
        assert all(not request.blocks for request in requests)


Cache = KVCache | NoCache


def make_cache(
    demand: Demand,
    num_blocks: int,
    *,
    prefix_caching: bool,
    secret: bytes,
    context: Sequence[str] = (),
    num_slots: int = 0,
) -> Cache:
    """The cache for what a model's groups demand. Raises UnsupportedModel for layers with state alone."""
    if demand.stateful and not demand.groups:
        raise UnsupportedModel("a model whose layers all keep a recurrent state is not supported")
    if not demand.groups:
        return NoCache(demand.block_size)
    return KVCache(
        demand,
        num_blocks,
        prefix_caching=prefix_caching,
        secret=secret,
        context=context,
        num_slots=num_slots,
    )
