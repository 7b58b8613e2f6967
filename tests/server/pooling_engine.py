"""An engine that gives vectors which tests can foresee: numbers made of the text's bytes."""

from __future__ import annotations

import asyncio

import numpy as np

from tenon.core.outputs import PoolingOutput, PoolingRequestOutput
from tenon.core.pooling import PoolingSpec
from tenon.core.prompt import check_input_length
from tests.server.fake_engine import ByteTokenizer, FakeEngine

EMBED = PoolingSpec(task="embed", pooling="mean", width=8, normalize=True, matryoshka=True)
CLASSIFY = PoolingSpec(
    task="classify", pooling="cls", width=3, activation="softmax", labels=("bad", "so", "good")
)
CROSS = PoolingSpec(task="classify", pooling="cls", width=1, activation="sigmoid", labels=("LABEL_0",))


class PairTokenizer(ByteTokenizer):
    def encode_input(self, text, second=None, *, limit=None, add_special_tokens=True):
        ids = [*self.encode(text)[:limit], *([256] if add_special_tokens else [])]
        if second is None:
            return ids, []
        other = self.encode(second)
        return [*ids, *other], [0] * len(ids) + [1] * len(other)


def vector(ids: list[int], width: int) -> np.ndarray:
    return np.array([sum(ids[i::width]) / 256 for i in range(width)], np.float32)


class PoolingEngine(FakeEngine):
    def __init__(self, spec: PoolingSpec) -> None:
        super().__init__()
        self.pooling = spec
        self.tokenizer = PairTokenizer()
        self.max_model_len = 64
        self.asked: list = []

    async def pool(
        self,
        inputs,
        params,
        request_id=None,
        *,
        priority=0,
        background=False,
        cache_salt="",
        share="",
        name="input",
        on_start=None,
    ):
        self.asked.append((inputs, params, priority, cache_salt))
        for given in inputs:
            check_input_length(len(given.token_ids), self.max_model_len, name)
        try:
            if on_start is not None:
                on_start()
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return [self._one(given, params, f"{request_id}/{i}") for i, given in enumerate(inputs)]

    def _one(self, given, params, request_id):
        if params.task == "token_embed":
            data = np.stack([vector([token], self.pooling.width) for token in given.token_ids])
        else:
            data = vector(given.token_ids, self.pooling.width)[: params.dimensions]
        if self.pooling.task == "embed" and params.normalize is not False:
            data = data / np.linalg.norm(data)
        output = PoolingOutput(data=data)
        return PoolingRequestOutput(request_id=request_id, prompt_token_ids=given.token_ids, outputs=output)
