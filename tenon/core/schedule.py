"""What one step computes, and the budgets it is made under."""

from __future__ import annotations

from dataclasses import dataclass, field

from tenon.core.request import Request


class Budget:
    """A limit that a step's requests share. `take` all or nothing; `undo` gives back."""

    __slots__ = ("left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit

    def take(self, amount: int) -> bool:
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def undo(self, amount: int) -> None:
        self.left += amount
        assert self.left <= self.limit, "gave back more than was taken"


@dataclass(slots=True)
class Schedule:
    """The step's requests and how many tokens each computes, in the order of the batch."""

    requests: list[Request] = field(default_factory=list)
    num_tokens: list[int] = field(default_factory=list)
    total_tokens: int = 0
    entered: list[Request] = field(default_factory=list)  # began to run with this step
    begun: list[Request] = field(default_factory=list)  # of these, for the first time
    grown: list[Request] = field(default_factory=list)  # got blocks in this step, those that entered aside
    preempted: list[Request] = field(default_factory=list)  # lost their blocks
    fresh_blocks: list[int] = field(default_factory=list)  # entered the prefix cache, filled by this step

    def add(self, request: Request, num_tokens: int) -> None:
        self.requests.append(request)
        self.num_tokens.append(num_tokens)
        self.total_tokens += num_tokens

    def __bool__(self) -> bool:
        return bool(self.requests)
