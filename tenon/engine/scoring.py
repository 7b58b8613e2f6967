"""Scores of pairs of texts, by whatever the model is: a cross-encoder reads both, embeddings are compared."""

from __future__ import annotations

from collections.abc import Sequence

from tenon.core.outputs import PoolingRequestOutput, ScoringOutput, ScoringRequestOutput
from tenon.core.pooling import PoolingParams, PoolingSpec
from tenon.errors import InvalidRequest


class Scoring:
    """`inputs` are what the engine must see, each one text or two; `scores` makes scores of the results.

    Either side is a text or several: one goes with each of the other side, or they go pair by pair. Raises
    InvalidRequest for numbers of texts that do not match, and for a model that has no one score.
    """

    def __init__(
        self,
        spec: PoolingSpec,
        first: str | Sequence[str],
        second: str | Sequence[str],
        *,
        activation: bool | None = None,
        names: tuple[str, str] = ("text_1", "text_2"),
    ) -> None:
        sides = [[side] if isinstance(side, str) else list(side) for side in (first, second)]
        for name, side in zip(names, sides, strict=True):
            if not side:
                raise InvalidRequest(f"{name} is empty", name)
            if not all(isinstance(text, str) for text in side):
                raise InvalidRequest(f"{name} must be text or a list of texts", name)
        lengths = [len(side) for side in sides]
        if lengths[0] != lengths[1] and lengths[0] != 1:
            raise InvalidRequest(
                f"{names[0]} must hold one text, or as many as {names[1]} ({lengths[1]}), not {lengths[0]}",
                names[0],
            )
        if spec.task == "classify" and not spec.scores_pairs:
            raise InvalidRequest(
                f"this model does not score pairs of texts; {spec.purpose}", "model", "model_not_for_this"
            )
        self._cross = spec.scores_pairs
        count = lengths[1]
        pairs = list(zip(sides[0] * (count // lengths[0]), sides[1], strict=True))
        self.inputs: list[tuple[str, ...]]
        if self._cross:
            self.inputs = list(pairs)
            self.params = PoolingParams(task="classify", activation=activation)
        else:
            texts = {text: i for i, text in enumerate(dict.fromkeys(t for side in sides for t in side))}
            self.inputs = [(text,) for text in texts]
            self._pairs = [(texts[a], texts[b]) for a, b in pairs]
            self.params = PoolingParams(task="embed", normalize=True)

    def scores(self, results: Sequence[PoolingRequestOutput]) -> list[ScoringRequestOutput]:
        """One for each pair, from the results of `inputs`."""
        if self._cross:
            return [_scored(r.request_id, r.prompt_token_ids, r.outputs.score) for r in results]
        import numpy as np  # not when the server starts

        scored = []
        for a, b in self._pairs:
            one, other = results[a], results[b]
            cosine = float(np.dot(one.outputs.data, other.outputs.data))
            scored.append(_scored(one.request_id, one.prompt_token_ids + other.prompt_token_ids, cosine))
        return scored


def _scored(request_id: str, ids: list[int], score: float) -> ScoringRequestOutput:
    return ScoringRequestOutput(
        request_id=request_id, prompt_token_ids=ids, outputs=ScoringOutput(score=score)
    )
