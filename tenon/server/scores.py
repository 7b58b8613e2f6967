"""POST /score and /rerank: how well texts go together."""

from __future__ import annotations

from tenon.core.outputs import ScoringRequestOutput
from tenon.engine.scoring import Scoring
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.errors import bad_request, not_supported
from tenon.server.schema.pooling import (
    Document,
    RerankRequest,
    RerankResponse,
    RerankResult,
    Score,
    ScoreRequest,
    VectorList,
)
from tenon.server.vectors import Run, activation_of


@answers(VectorList[Score])
async def score(call: Call, request: ScoreRequest) -> None:
    """How well texts go together, in pairs or one with many, as vLLM has it."""
    run = await Run.begin(call, request, "score")
    scoring = Scoring(run.spec, request.text_1, request.text_2, activation=activation_of(request))
    scored = await _scores(run, scoring, "text_2")
    await run.send([Score(index=index, score=one.outputs.score) for index, one in enumerate(scored)])


@answers(RerankResponse)
async def rerank(call: Call, request: RerankRequest) -> None:
    """Documents by falling score, the better `top_n` of them (0: all), as Cohere and Jina have it."""
    for field in ("rank_fields", "max_tokens_per_doc", "max_chunks_per_doc"):
        if getattr(request, field) is not None:
            raise not_supported(field)
    if request.top_n is not None and request.top_n < 0:
        raise bad_request(f"top_n must not be negative, but is {request.top_n}", "top_n")
    run = await Run.begin(call, request, "rerank")
    texts = [_text(document) for document in request.documents]
    scoring = Scoring(
        run.spec,
        _text(request.query),
        texts,
        activation=activation_of(request),
        names=("query", "documents"),
    )
    scored = await _scores(run, scoring, "documents")
    scores = [one.outputs.score for one in scored]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    results = [RerankResult(index=i, relevance_score=scores[i]) for i in order[: request.top_n or None]]
    if request.return_documents is not False:
        for result in results:
            result.document = Document(text=texts[result.index])
    meta = {
        "api_version": {"version": "2" if call.scope["path"].startswith("/v2") else "1"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": run.num_tokens},
    }
    await call.send_json(
        RerankResponse(id=run.id, model=run.model, results=results, usage=run.usage, meta=meta)
    )


async def _scores(run: Run, scoring: Scoring, name: str) -> list[ScoringRequestOutput]:
    return scoring.scores(await run.pool(scoring.inputs, scoring.params, name))


def _text(document: str | Document) -> str:
    return document if isinstance(document, str) else document.text
