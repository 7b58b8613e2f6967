"""Bodies of the endpoints that answer with vectors or scores: embeddings, pooling, classify, rerank."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tenon.server.schema.sampling import Priority

T = TypeVar("T")

Input = str | list[str | int | list[int]]  # text, token ids, or a list of either


class PoolingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What all of them take. None means the same as absent."""

    model: str | None = None
    user: str | None = None
    truncate_prompt_tokens: int | None = None
    add_special_tokens: bool | None = None
    priority: Priority | None = None
    cache_salt: str | None = None


class EmbeddingRequest(PoolingFields, kw_only=True):
    input: Input
    encoding_format: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None


class PoolingRequest(PoolingFields, kw_only=True):
    input: Input
    task: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    use_activation: bool | None = None
    activation: bool | None = None  # its older name


class ClassifyRequest(PoolingFields, kw_only=True):
    input: Input
    use_activation: bool | None = None
    activation: bool | None = None


class ScoreRequest(PoolingFields, kw_only=True):
    text_1: str | list[str]
    text_2: str | list[str]
    use_activation: bool | None = None
    activation: bool | None = None


class Document(msgspec.Struct, kw_only=True):
    """A document given as an object; only its text is read."""

    text: str


class RerankRequest(PoolingFields, kw_only=True):
    """Cohere's and Jina's."""

    query: str | Document
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    rank_fields: list[str] | None = None
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int | None = None


class VectorUsage(msgspec.Struct, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct, kw_only=True):
    """`embedding` is base64 of little-endian float32 numbers when that was asked for."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class Pooled(msgspec.Struct, kw_only=True):
    """`data` are numbers, rows of numbers (one for each token), or base64 of them."""

    index: int
    data: list[Any] | str
    object: str = "pooling"


class Classification(msgspec.Struct, kw_only=True):
    """`label` is the most likely one."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class Score(msgspec.Struct, kw_only=True):
    index: int
    score: float
    object: str = "score"


class VectorList(msgspec.Struct, Generic[T], kw_only=True):
    """The answer of all but rerank."""

    id: str
    created: int
    model: str
    data: list[T]
    usage: VectorUsage
    object: str = "list"


class RerankResult(msgspec.Struct, kw_only=True):
    index: int
    relevance_score: float
    document: Document | UnsetType = UNSET


class RerankResponse(msgspec.Struct, kw_only=True):
    """`meta` is where Cohere's clients look for counts, `usage` where Jina's do."""

    id: str
    model: str
    results: list[RerankResult]
    usage: VectorUsage
    meta: dict[str, Any]
