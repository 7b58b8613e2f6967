"""POST /v1/embeddings, /pooling and /classify: a vector for each input."""

from __future__ import annotations

from tenon.core.outputs import PoolingRequestOutput
from tenon.core.pooling import PoolingParams
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.schema.pooling import (
    Classification,
    ClassifyRequest,
    Embedding,
    EmbeddingRequest,
    Pooled,
    PoolingRequest,
    VectorList,
)
from tenon.server.vectors import Run, activation_of, on_the_wire, split_inputs, wants_base64


@answers(VectorList[Embedding])
async def embed(call: Call, request: EmbeddingRequest) -> None:
    """Vectors of texts, as OpenAI has it."""
    run = await Run.begin(call, request, "embd")
    as_base64 = wants_base64(request.encoding_format)
    params = PoolingParams(task="embed", dimensions=request.dimensions, normalize=request.normalize)
    results = await run.pool(split_inputs(request.input), params, "input")

    def vector(index: int, result: PoolingRequestOutput) -> Embedding:
        return Embedding(index=index, embedding=on_the_wire(result.outputs.data, as_base64))

    await run.send_vectors(results, vector)


@answers(VectorList[Pooled])
async def pool(call: Call, request: PoolingRequest) -> None:
    """As vLLM has it: whatever the model gives, or with the task token_embed a vector for each token."""
    run = await Run.begin(call, request, "pool")
    as_base64 = wants_base64(request.encoding_format)
    params = PoolingParams(
        task=request.task or run.spec.task,
        dimensions=request.dimensions,
        normalize=request.normalize,
        activation=activation_of(request),
    )
    results = await run.pool(split_inputs(request.input), params, "input")

    def pooled(index: int, result: PoolingRequestOutput) -> Pooled:
        return Pooled(index=index, data=on_the_wire(result.outputs.data, as_base64))

    await run.send_vectors(results, pooled)


@answers(VectorList[Classification])
async def classify(call: Call, request: ClassifyRequest) -> None:
    """Classes of texts and their probabilities, as vLLM has it."""
    run = await Run.begin(call, request, "classify")
    params = PoolingParams(task="classify", activation=activation_of(request))
    results = await run.pool(split_inputs(request.input), params, "input")
    labels = run.spec.labels
    data = []
    for index, result in enumerate(results):
        probs = result.outputs.probs.tolist()
        best = max(range(len(probs)), key=probs.__getitem__)
        label = labels[best] if labels else None
        data.append(Classification(index=index, label=label, probs=probs, num_classes=len(probs)))
    await run.send(data)
