"""What one request may emit next: anything while it thinks, what its grammar allows when it answers, and the
closing of its thinking when the budget for that is used up.

A guide follows the tokens of its request by itself, and its state is a function of them alone: preemption,
chunks and batches change nothing.

With a grammar, the thinking cannot end the output, and where thinking may begin, its opening marker may come
as well as the answer. Up to two tokens of white space may stand between thinking and answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tenon.grammar.matcher import GrammarError, Matcher
from tenon.grammar.thinking import Phase, Place, Tracker, cut_character
from tenon.grammar.vocabulary import Vocabulary

MAX_ROLLBACK = 64
_SPACE_TOKENS = 2
_CHARACTER_TOKENS = 3  # more than a character can need to be completed


class _State(NamedTuple):
    """Behind one token."""

    token: int = -1
    place: Place | None = None  # None: what follows is the answer, to the end
    forced: tuple[int, ...] = ()  # tokens still to come that close the thinking
    completing: int = 0  # tokens spent on the last character of the thinking
    spaces: int = 0  # tokens of white space that may precede the answer
    answering: bool = True  # what has come since the start can be an answer
    taken: int = 0  # tokens that the matcher has accepted


class Guide:
    """`matcher` None: only the budget counts. `tracker` None: there is no thinking."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        num_prompt: int,
        matcher: Matcher | None,
        tracker: Tracker | None = None,
        budget: int | None = None,
    ) -> None:
        self.error: str | None = None  # why the request cannot go on
        self.must_end = False  # nothing but the end may come next
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._tracker = tracker
        self._budget = budget
        self._followed = num_prompt
        # Whether the thinking keeps the matcher out of it.
        self._gated = matcher is not None and tracker is not None and not tracker.thinking.in_grammar
        place = tracker.begin() if tracker else None
        if self._gated and place is not None and place.phase is Phase.CONTENT:
            place = None
        self._states = [self._spend(_State(place=place))]

    def follow(self, tokens: list[int]) -> None:
        """Take the tokens that are new since the last call."""
        for token in tokens[self._followed :]:
            self._states.append(self._after(self._states[-1], token))
        self._followed = len(tokens)
        del self._states[: -MAX_ROLLBACK - 1]

    def rollback(self, count: int) -> None:
        """Take back the last `count` followed tokens, at most MAX_ROLLBACK."""
        assert count < len(self._states), "that far back nothing is known"
        before, kept = self._states[-1].taken, len(self._states) - count
        after = self._states[kept - 1].taken
        if self._matcher is not None:
            self._matcher.rollback(before - min(before, after))
            for state in self._states[kept - max(after - before, 0) : kept]:  # the matcher had started anew
                self._matcher.accept(state.token)
        del self._states[kept:]
        self._followed -= count

    def fill(self, mask_W: np.ndarray) -> bool:
        """Write the tokens that may come next; False if all may. Sets `must_end`, and `error` if it fails."""
        self.must_end = False
        try:
            return self._fill(self._states[-1], mask_W)
        except GrammarError as error:
            self.error = str(error)
            return False

    def _fill(self, state: _State, mask_W: np.ndarray) -> bool:
        place, vocabulary = state.place, self._vocabulary
        if state.forced:
            mask_W[:] = vocabulary.mask([state.forced[0]])
            return True
        if self._matcher is None:
            return False
        if self._gated and place is not None and place.phase is Phase.INSIDE:
            self._fill_inside(place, mask_W)
            return True
        mask_W[:] = 0
        if state.answering:
            self._matcher.fill_mask(mask_W)
        if state.spaces:
            mask_W |= vocabulary.spaces
        elif self._gated and place is not None and self._tracker is not None:
            for rest in self._tracker.openings(place):
                mask_W |= vocabulary.spelling(rest)
        else:
            self.must_end = self._matcher.complete
        return True

    def _fill_inside(self, place: Place, mask_W: np.ndarray) -> None:
        """No token may end the output, or close the thinking in another way than by its marker, or go on with
        the answer at once: the grammar would miss its beginning."""
        assert self._tracker is not None
        closer = self._tracker.closer(place)
        mask_W[:] = self._vocabulary.not_eos
        for rest in self._tracker.missing(place, closer):
            mask_W &= self._vocabulary.within(closer, rest)
        for marker in self._tracker.ended_by:
            for rest in self._tracker.missing(place, marker):
                mask_W &= self._vocabulary.without(marker, rest)

    def _after(self, state: _State, token: int) -> _State:
        due = state.forced[:1] == (token,)
        state = state._replace(token=token, forced=state.forced[1:] if due else ())
        if state.place is None or self._tracker is None:
            return self._answer(state)
        place = self._tracker.after(state.place, self._vocabulary.tokens[token])
        if not self._gated:
            return self._spend(self._answer(state._replace(place=place)))
        if place.phase is Phase.INSIDE:
            return self._spend(self._restart(state)._replace(place=place))
        if state.place.phase is Phase.INSIDE:
            return state._replace(place=None, spaces=_SPACE_TOKENS)
        if place.phase is Phase.CONTENT:
            return self._answer(state._replace(place=None))
        return self._undecided(state._replace(place=place))

    def _undecided(self, state: _State) -> _State:
        """The token may belong to an opening marker, to the answer, or to both."""
        assert self._matcher is not None
        if state.answering and self._matcher.accept(state.token):
            return state._replace(taken=state.taken + 1)
        return self._restart(state)._replace(answering=False)

    def _restart(self, state: _State) -> _State:
        assert self._matcher is not None
        self._matcher.rollback(state.taken)
        return state._replace(taken=0, answering=True)

    def _answer(self, state: _State) -> _State:
        token, vocabulary = state.token, self._vocabulary
        if self._matcher is None or token in vocabulary.eos_ids:
            return state
        if state.spaces and vocabulary.spaces[token // 32] >> token % 32 & 1:
            return state._replace(spaces=state.spaces - 1)
        if not self._matcher.accept(token):
            self.error = self.error or f"the grammar does not allow token {token}"
            return state
        return state._replace(taken=state.taken + 1, spaces=0)

    def _spend(self, state: _State) -> _State:
        """Begin to close the thinking once its budget is used up, but not in the middle of a character."""
        place = state.place
        if self._budget is None or place is None or place.phase is not Phase.INSIDE or state.forced:
            return state
        if place.num_tokens < self._budget:
            return state
        if cut_character(place.tail) and state.completing < _CHARACTER_TOKENS:
            return state._replace(completing=state.completing + 1)
        assert self._tracker is not None
        return state._replace(forced=tuple(self._tracker.thinking.closing[place.pair]), completing=0)
