"""The API's description is complete and true: schemathesis asks every route what it says and what not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tenon.server.app import build_app
from tenon.server.codes import CODES
from tenon.server.contract import answers, contract_of
from tenon.server.openapi import describe, operations
from tenon.server.probes import get_version
from tenon.server.settings import ServerSettings
from tests.conftest import new_seed
from tests.server.conftest import INTERNALS
from tests.server.fake_engine import FakeEngine
from tests.server.pooling_engine import CROSS, EMBED, PoolingEngine
from tests.server.serving import in_thread

EXAMPLES = 8


def listed_code(ctx, response, case) -> None:
    """An error has a code from the list, with its status, and tells nothing internal."""
    if response.status_code >= 400 and "json" in response.headers["content-type"][0]:
        assert not INTERNALS.search(response.text), response.text
        if code := response.json()["error"].get("code"):
            assert response.status_code in CODES[code][0], response.text


CHECKS = [
    listed_code,
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
USER = [{"role": "user", "content": "hi"}]
# Requests that succeed: random ones seldom do.
VALID = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 3, "logprobs": True, "top_logprobs": 2},
    "/v1/completions": {"prompt": "hi", "max_tokens": 3, "logprobs": 1},
    "/v1/responses": {"input": "hi", "max_output_tokens": 3},
    "/v1/messages": {"messages": USER, "max_tokens": 3, "model": "fake"},
    "/v1/messages/count_tokens": {"messages": USER, "model": "fake"},
    "/tokenize": {"prompt": "hi", "return_token_strs": True},
    "/detokenize": {"tokens": [104, 105]},
    "/v1/embeddings": {"input": ["hi", "ho"]},
    "/pooling": {"input": "hi"},
    "/classify": {"input": "hi"},
    "/score": {"text_1": "hi", "text_2": ["ho", "hu"]},
    "/v1/score": {"text_1": "hi", "text_2": "ho"},
    "/rerank": {"query": "hi", "documents": ["ho", "hu"]},
    "/v1/rerank": {"query": "hi", "documents": ["ho"], "return_documents": True},
    "/v2/rerank": {"query": "hi", "documents": ["ho"]},
}
ENGINES = {"embeddings": EMBED, "pooling": EMBED, "classify": CROSS, "score": CROSS, "rerank": CROSS}


APP = build_app(FakeEngine())
SCHEMA = schemathesis.openapi.from_dict(describe(APP))
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
ASKED = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    if mode.is_positive or operation.body or operation.query  # any text may stand in a path
]


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with in_thread(FakeEngine(), ServerSettings(data_dir=tmp_path_factory.mktemp("data"))) as url:
        yield url


def run(test) -> None:
    seed = new_seed()
    print(f"TENON_TEST_SEED={seed}")
    bounded = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    hypothesis.seed(seed)(bounded(test))()


@pytest.mark.parametrize(("label", "mode"), ASKED, ids=[f"{label} {mode.value}" for label, mode in ASKED])
def test_random_requests(url, label, mode):
    """No 5xx, no status, type or body that the description does not have; what is invalid is refused."""

    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(url, checks=[*CHECKS, negative_data_rejection])

    run(ask)


@pytest.mark.parametrize("path", VALID)
def test_nearly_valid_requests(path):
    """A request that succeeds, with up to two fields that are random: most get past the first checks."""
    spec = ENGINES.get(path.rpartition("/")[2])
    operation = OPERATIONS[f"POST {path}"]
    statuses = set()

    @given(case=operation.as_strategy(), data=st.data())
    def ask(case, data):
        random = case.body if isinstance(case.body, dict) else {}
        chosen = data.draw(st.sets(st.sampled_from(sorted(random)), max_size=2)) if random else set()
        case.body = VALID[path] | {name: random[name] for name in chosen}
        if "stream" in random:
            case.body["stream"] = data.draw(st.booleans())
        statuses.add(case.call_and_validate(url, checks=CHECKS).status_code)

    with in_thread(PoolingEngine(spec) if spec else FakeEngine()) as url:
        run(ask)
    assert 200 in statuses


def test_routes_of_one_thing(url):
    """Asked for one that exists, then for what its state does not allow."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": VALID["/v1/completions"]}
    with httpx.Client(base_url=url) as http:
        upload = {"file": ("a.jsonl", json.dumps(line)), "purpose": (None, "batch")}
        file = http.post("/v1/files", files=upload).json()["id"]
        response = http.post("/v1/responses", json=VALID["/v1/responses"]).json()["id"]
        fields = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
        batch = http.post("/v1/batches", json=fields).json()["id"]
        while http.get(f"/v1/batches/{batch}").json()["status"] != "completed":
            time.sleep(0.01)
    things = {"responses": response, "files": file, "batches": batch}
    asked = [operation for label, operation in OPERATIONS.items() if "{id}" in label]
    statuses = {}
    for operation in sorted(asked, key=lambda operation: operation.method == "delete"):
        case = operation.Case(path_parameters={"id": things[operation.path.split("/")[2]]})
        statuses[operation.label] = case.call_and_validate(url, checks=CHECKS).status_code
    assert statuses.pop("POST /v1/responses/{id}/cancel") == 400
    assert statuses.pop("POST /v1/batches/{id}/cancel") == 409
    assert len(statuses) == 7
    assert set(statuses.values()) == {200}


def test_with_keys():
    """Without the right key every route that is not public answers 401, as it is described."""
    public = {"/health", "/live", "/ready", "/version", "/openapi.json", "/", "/ui/{name}"}
    with in_thread(FakeEngine(), ServerSettings.with_keys(["secret"])) as url:
        for operation in OPERATIONS.values():
            case = operation.Case(
                path_parameters={"id": "x", "name": "x"}, body={}, media_type="application/json"
            )
            response = case.call_and_validate(url, checks=CHECKS, headers={"authorization": "Bearer wrong"})
            assert (response.status_code == 401) == (operation.path not in public), operation.label


def test_every_route_is_described(url):
    described = httpx.get(f"{url}/openapi.json").json()
    assert described == json.loads(json.dumps(describe(APP)))
    found = list(operations(APP))
    assert len(found) == sum(len(methods) for methods in described["paths"].values())
    names = [operation.name for operation in found]
    assert len(set(names)) == len(names)
    assert all(operation.summary for operation in found)
    plain = {found.path for found in found if found.method == "POST" and "{" not in found.path}
    assert set(VALID) == plain - {"/v1/files", "/v1/batches"}


def test_references_lead_somewhere():
    described = describe(APP)
    text = json.dumps(described)
    for name in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in described["components"]["schemas"]


def test_a_handler_must_say_what_it_answers():
    async def silent(call): ...

    with pytest.raises(TypeError, match="silent does not say what it answers"):
        contract_of(silent)
    assert contract_of(answers(dict[str, str])(silent)).body == dict[str, str]


def test_an_app_with_a_route_that_is_not_described_cannot_be_made(monkeypatch):
    monkeypatch.delattr(get_version, "contract")
    with pytest.raises(TypeError, match="get_version does not say what it answers"):
        build_app(FakeEngine())
