"""One choice of a request, as the engine sees it from admission to its last token."""

from __future__ import annotations

from enum import Enum
from typing import Any

from tenon.core.messages import AddRequest, TokenLogprob


class State(Enum):
    WAITING = "waiting"  # new, or preempted: holds no blocks and no row
    RUNNING = "running"
    FINISHED = "finished"


class Request:
    """Tokens known, tokens computed, blocks held.

    `tokens` is the prompt followed by every emitted token, and only grows: what was emitted is never taken
    back or sampled again. A preempted request computes its tokens anew and goes on where it was. The next
    token is sampled in the step that computes the last known one.
    """

    __slots__ = (
        "arrival_time",
        "background",
        "block_keys",
        "blocks",
        "branch",
        "cache_salt",
        "chain",
        "charged",
        "choice",
        "edits",
        "eos_ids",
        "gone",
        "guide",
        "id",
        "max_total",
        "num_cached",
        "num_computed",
        "num_prompt",
        "params",
        "pooled",
        "pooling",
        "priority",
        "prompt_logprobs",
        "queued_seconds",
        "room",
        "row",
        "seq",
        "share",
        "snapshot",
        "state",
        "state_in",
        "state_out",
        "stop_ids",
        "suspect",
        "token_types",
        "tokens",
    )

    def __init__(
        self, add: AddRequest, seq: int, max_model_len: int, model_eos_ids: frozenset[int] = frozenset()
    ) -> None:
        self.id = add.request_id
        self.params = add.params
        self.choice = add.choice
        self.priority = add.priority
        self.background = add.background
        self.cache_salt = add.cache_salt
        self.share = add.share
        self.arrival_time = add.arrival_time  # None once it has run
        self.queued_seconds = 0.0  # known once it has run
        self.seq = seq  # order of arrival in this engine, unique
        self.state = State.WAITING
        self.tokens = add.prompt_token_ids.copy()
        self.num_prompt = len(self.tokens)
        room = max_model_len - self.num_prompt
        if add.pooling is not None:
            room = 0
        wanted = room if add.params.max_tokens is None else min(add.params.max_tokens, room)
        self.max_total = self.num_prompt + wanted  # never holds more tokens than this
        self.charged = 0  # tokens that its share has been charged for
        self.num_cached = -1  # of these, found in the prefix cache at first admission; -1 before it
        self.block_keys: list[Any] = []  # the prefix cache's, of each full block of `tokens`, made on demand
        self.lose_cache()
        self.row = -1  # in the engine's table while running
        self.suspect = False  # was in a step that failed: computed alone until it has emitted a token
        self.stop_ids = frozenset(add.params.stop_token_ids or ())
        self.eos_ids = frozenset() if add.params.ignore_eos else model_eos_ids.union(add.eos_token_ids)
        self.edits: Any = None  # the sampler's: what it changes in this request's logits, if anything
        self.guide: Any = None  # what may come next (tenon.grammar.guide), if anything restricts it
        self.prompt_logprobs: list[TokenLogprob] | None = None if add.params.prompt_logprobs is None else []

        self.pooling = add.pooling  # None: a request for tokens
        self.pooled: Any = None  # the pooling runner's: what it has of this request's states so far
        self.token_types = add.token_types

    def lose_cache(self) -> None:
        """It holds nothing of the cache (any more): nothing of it is computed."""
        self.num_computed = 0  # tokens whose K/V is in the blocks
        self.blocks: list[list[int]] = []  # of each group of layers, in order of position; -1: given back
        self.gone: list[int] = []  # of each group: how many of the first blocks were given back
        self.room = 0  # tokens up to which the cache need not be asked
        self.chain: list[Any] = []  # the prefix cache's entries for the first blocks
        self.state_in = self.state_out = -1  # slots of recurrent state: that of the tokens computed; the next
        self.snapshot: Any = None  # the prefix cache's entry of the latest state that it made of its output
        self.branch = 0  # tokens that others began with as well: a state of these would have been of use

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def needs_whole_prompt(self) -> bool:
        """Something is wanted of every token of the prompt: none of them may come from the prefix cache."""
        return self.wants_prompt_logprobs or self.pooled is not None

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Still misses logprobs of prompt tokens (the first token of a prompt has none)."""
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.num_prompt - 1

    def __repr__(self) -> str:
        return (
            f"Request({self.id!r}, {self.state.value}, computed {self.num_computed}/{len(self.tokens)}, "
            f"{[len(blocks) for blocks in self.blocks]} blocks)"
        )
