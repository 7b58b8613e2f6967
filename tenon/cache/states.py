"""Slots of recurrent state: what layers that keep one remember of a request, after some of its tokens.

A request reads one slot in a step and writes one, mostly the same. A snapshot is a slot that nobody writes
any more, as the prefix cache knows it: whoever goes on from it, be it the request that made it, reads it and
writes another slot. So nothing is ever copied. Snapshots are made when a step ends at the end of a block; of
its own output a request keeps the latest one only. They are luxury: where no slot is free, a request takes
its own back.
"""

from __future__ import annotations

from collections.abc import Iterable

from tenon.cache.blocks import BlockPool
from tenon.cache.prefix import PrefixCache
from tenon.core.request import Request


class StateSlots:
    """Who reads and writes which slot of `pool`."""

    def __init__(self, pool: BlockPool, block_size: int, prefix: PrefixCache | None) -> None:
        self.pool = pool
        self._block_size = block_size
        self._prefix = prefix

    def admit(self, request: Request, snapshot: int) -> bool:
        """Slots for the first step, from a snapshot on, or (-1) from nothing. False, and no change, if there
        is none to write."""
        if snapshot >= 0:
            self.pool.hold(snapshot)
        slot = self._writable(snapshot)
        if slot < 0:
            self.pool.release([snapshot] if snapshot >= 0 else [])
            return False
        request.state_in, request.state_out = snapshot, slot
        return True

    def go_on(self, request: Request) -> bool:
        """A slot to write in a further step, if that of the last one was made a snapshot. False if there is
        none."""
        if request.state_out == request.state_in and self.pool.is_cached(request.state_in):
            slot = self._writable(request.state_in)
            if slot < 0:
                return False
            request.state_out = slot
        return True

    def settle(self, request: Request) -> None:
        """A step of the request has run."""
        if request.state_in != request.state_out:
            if request.state_in >= 0:
                self.pool.release([request.state_in])
            request.state_in = request.state_out
        if self._prefix is not None and request.num_computed % self._block_size == 0:
            self._keep(self._prefix, request)

    def release(self, request: Request) -> None:
        slots = {request.state_in, request.state_out} - {-1}
        self.pool.release(sorted(slots))

    def check_integrity(self, requests: Iterable[Request]) -> None:
        slots = [{request.state_in, request.state_out} - {-1} for request in requests]
        self.pool.check_integrity([sorted(of_one) for of_one in slots])

    def _writable(self, current: int) -> int:
        """A slot for a request that reads `current`: another one, or this one if nobody else has it; or
        -1."""
        if (slots := self.pool.allocate(1)) is not None:
            return slots[0]
        if current < 0 or self.pool.refs[current] > 1:
            return -1
        assert self._prefix is not None
        self._prefix.forget_state(current)
        return current

    def _keep(self, prefix: PrefixCache, request: Request) -> None:
        """What the request has now stays as it is, for others, if it is known of which tokens it is."""
        index = request.num_computed // self._block_size - 1
        entry = request.chain[index]
        if not prefix.insert_state(entry, request.state_out):
            return
        request.room = min(request.room, request.num_computed)  # the next step needs another slot
        if request.num_computed > request.num_prompt:
            last, request.snapshot = request.snapshot, entry
            if last is not None and last.state >= 0:
                prefix.forget_state(last.state)
