"""What a model that gives vectors is for, and how a request wants its vector."""

from __future__ import annotations

import msgspec

from tenon.errors import InvalidRequest

POOLINGS = ("mean", "cls", "last")
TASKS = ("embed", "classify", "token_embed")
ACTIVATIONS = ("none", "sigmoid", "softmax")


class PoolingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model's vectors. `task` is "embed" (vectors to compare) or "classify" (one number for each label)."""

    task: str
    pooling: str  # one of POOLINGS: the mean of all tokens' states, the first one's, the last one's
    width: int  # numbers in a vector
    normalize: bool = False  # embeddings have length 1
    activation: str = "none"  # one of ACTIVATIONS: of a classifier's numbers
    labels: tuple[str, ...] = ()
    matryoshka: bool = False  # the first numbers of an embedding are an embedding
    dimensions: tuple[int, ...] = ()  # how many, if only some numbers of them are allowed
    num_token_types: int = 1  # that the model knows: 2, if it tells the texts of a pair apart by them

    @property
    def scores_pairs(self) -> bool:
        """A cross-encoder: one number that says how well two texts go together."""
        return self.task == "classify" and self.width == 1

    @property
    def purpose(self) -> str:
        """For messages: what the model is for."""
        if self.task == "embed":
            return "it gives embeddings: use /v1/embeddings, or /v1/score and /v1/rerank (cosine similarity)"
        if self.scores_pairs:
            return "it scores pairs of texts: use /v1/score, /v1/rerank or /classify"
        return f"it classifies texts by {self.width} labels: use /classify"


class Pooler(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user sets in place of what the model's files say (--pooler); None: as they say."""

    pooling: str | None = None
    normalize: bool | None = None
    activation: str | None = None
    matryoshka: bool | None = None


class PoolingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How one request wants its vector; None: the model's default.

    `dimensions` keeps the first numbers of an embedding, before it is normalised. `activation` False gives a
    classifier's raw numbers. Raises InvalidRequest when a value is out of range.
    """

    task: str = "embed"
    dimensions: int | None = None
    normalize: bool | None = None
    activation: bool | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InvalidRequest(f"task must be one of {', '.join(TASKS)}, not {self.task!r}", "task")
        if self.dimensions is not None and (
            isinstance(self.dimensions, bool) or not isinstance(self.dimensions, int) or self.dimensions < 1
        ):
            raise InvalidRequest(
                f"dimensions must be a whole number of at least 1, not {self.dimensions!r}", "dimensions"
            )

    def check(self, spec: PoolingSpec) -> None:
        """Raises InvalidRequest for what a model of this kind does not do."""
        wanted = "classify" if self.task == "classify" else "embed"
        if wanted != spec.task:
            raise InvalidRequest(
                f"this model does not {_DOING[wanted]}; {spec.purpose}", "model", "model_not_for_this"
            )
        if self.dimensions is None:
            return
        if not spec.matryoshka:
            raise InvalidRequest(
                "dimensions: this model's embeddings cannot be cut short (it was not trained for it, or its "
                "files do not say so; the server's --pooler matryoshka=true allows it)",
                "dimensions",
            )
        if self.dimensions > spec.width or (spec.dimensions and self.dimensions not in spec.dimensions):
            allowed = ", ".join(map(str, spec.dimensions)) or f"1 to {spec.width}"
            raise InvalidRequest(f"dimensions must be one of {allowed}, not {self.dimensions}", "dimensions")


_DOING = {"classify": "classify texts", "embed": "give embeddings"}


class Vectors(msgspec.Struct, array_like=True):
    """A request's result: float32 [rows, width], row after row, as bytes."""

    rows: int
    width: int
    data: bytes
    each_token: bool = False  # rows are of tokens; else there is one, of the whole input
