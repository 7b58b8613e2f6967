"""What becomes of a call once it has ended."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tenon.server.call import Call
from tenon.server.stream import Generation
from tests.server.oracle_serving import Raw, oracle_serving

TEXT = "/v1/completions"
ENDS = {
    "whole": ({"prompt": [1, 2], "max_tokens": 3}, {}, 200),
    "stream": ({"prompt": [1, 2], "max_tokens": 3, "stream": True}, {}, 200),
    "refused": ({"prompt": [1, 2], "max_tokens": -1}, {}, 400),
    "refused later": ({"prompt": [1, 2], "structured_outputs": {"regex": "("}}, {}, 400),
    "too late": ({"prompt": [1], "max_tokens": 500}, {"x_request_timeout_ms": "1"}, 504),
}


def held() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, Call | Generation)]


@pytest.mark.parametrize("end", ENDS)
async def test_it_is_freed_without_a_collection(end):
    """Until one came, prompts and answers of thousands would fill the memory."""
    body, headers, status = ENDS[end]
    async with oracle_serving(step=0.002) as server:
        gc.collect()
        gc.freeze()  # what is there already is not looked at
        gc.disable()
        try:
            for _ in range(3):
                async with Raw(server.port, TEXT, body, connection="close", **headers) as raw:
                    assert (await raw.answer())[0] == status
            async with asyncio.timeout(10):
                while held():
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
            gc.unfreeze()
