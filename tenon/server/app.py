"""The ASGI application: which path is answered by what."""

from __future__ import annotations

import hashlib
import secrets
from weakref import WeakKeyDictionary

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from tenon.server import (
    batches,
    chat,
    check,
    completions,
    embeddings,
    files,
    models,
    openapi,
    page,
    probes,
    scores,
    tokenize,
)
from tenon.server.admission import Admission
from tenon.server.anthropic import api as messages
from tenon.server.anthropic.wire import ANTHROPIC
from tenon.server.archive import Archive
from tenon.server.body import Bare, Form, Json
from tenon.server.call import Call
from tenon.server.dialect import Dialect
from tenon.server.endpoint import Endpoint, NotFound
from tenon.server.engine import Engine
from tenon.server.fleet import Fleet
from tenon.server.intake import Intake
from tenon.server.metrics import Metrics
from tenon.server.models import Fixed, Models
from tenon.server.origin import with_cors
from tenon.server.responses import api as responses
from tenon.server.responses.store import Store
from tenon.server.responses.wire import RESPONSES
from tenon.server.schema.anthropic import CountRequest, MessagesRequest
from tenon.server.schema.batches import BatchRequest
from tenon.server.schema.chat import ChatRequest
from tenon.server.schema.completion import CompletionRequest
from tenon.server.schema.pooling import (
    ClassifyRequest,
    EmbeddingRequest,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
)
from tenon.server.schema.responses import ResponsesRequest
from tenon.server.schema.tokenize import DetokenizeRequest, TokenizeRequest
from tenon.server.settings import ServerSettings
from tenon.server.wire import OPENAI


class App:
    """State that requests share, and the router. `live` are the calls that are being answered now."""

    def __init__(self, served: Models, settings: ServerSettings) -> None:
        self.models = served
        self.settings = settings
        self.metrics = Metrics()
        limits = settings.limits
        self.admission = Admission(limits)
        self.intake = Intake(limits.bodies_bytes)
        self._secret = secrets.token_bytes(32)
        self.live: set[Call] = set()
        self.stopping = False  # new requests get 503; those in flight go on
        self.archive = Archive(self)
        self.metrics.watch(served.stats, served.loaded, served.pulses)
        self.metrics.watch_queues(self.admission)
        names = [slot.name for slot in served.slots]
        self.metrics.expect(names)
        self.admission.expect(names)
        self.responses = Store(limits.responses, limits.response_bytes, limits.key_background)
        self._dialects: WeakKeyDictionary[Engine, Dialect] = WeakKeyDictionary()
        self.routes = self._routes()
        list(openapi.operations(self))  # raises TypeError for a route that is not described
        router = Router(self.routes, redirect_slashes=False, default=self._not_found)
        self._answer = with_cors(router, settings.cors_origins)

    def _routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", Endpoint(self, post=Json(ChatRequest, chat.create))),
            Route("/v1/completions", Endpoint(self, post=Json(CompletionRequest, completions.create))),
            *self._responses(),
            Route("/v1/messages", self._anthropic(Json(MessagesRequest, messages.create))),
            Route("/v1/messages/count_tokens", self._anthropic(Json(CountRequest, messages.count_tokens))),
            Route("/tokenize", Endpoint(self, post=Json(TokenizeRequest, tokenize.tokenize))),
            Route("/detokenize", Endpoint(self, post=Json(DetokenizeRequest, tokenize.detokenize))),
            *self._vectors(),
            *self._batches(),
            Route("/v1/models", Endpoint(self, get=models.list_models)),
            Route("/v1/models/{name:path}", Endpoint(self, get=models.get_model)),
            Route("/metrics", Endpoint(self, get=probes.metrics, public=self.settings.public_metrics)),
            Route("/health", Endpoint(self, get=probes.health, public=True)),
            Route("/health_generate", Endpoint(self, get=check.health_generate)),
            Route("/live", Endpoint(self, get=probes.live, public=True)),
            Route("/ready", Endpoint(self, get=probes.ready, public=True)),
            Route("/version", Endpoint(self, get=probes.get_version, public=True)),
            Route("/openapi.json", Endpoint(self, get=openapi.openapi, public=True)),
            Route("/", Endpoint(self, get=page.index, public=True)),
            Route("/ui/{name:path}", Endpoint(self, get=page.file, public=True)),
        ]

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = ANTHROPIC if scope["path"].startswith("/v1/messages/") else OPENAI
        await NotFound(self, wire)(scope, receive, send)

    def _batches(self) -> list[Route]:
        upload = Form(files.create, max_bytes=self.settings.limits.file_bytes + files.FORM_BYTES)
        return [
            Route("/v1/files", Endpoint(self, get=files.list_files, post=upload)),
            Route("/v1/files/{id}", Endpoint(self, get=files.get_file, delete=files.delete_file)),
            Route("/v1/files/{id}/content", Endpoint(self, get=files.get_content)),
            Route(
                "/v1/batches",
                Endpoint(self, get=batches.list_batches, post=Json(BatchRequest, batches.create)),
            ),
            Route("/v1/batches/{id}", Endpoint(self, get=batches.get_batch)),
            Route("/v1/batches/{id}/cancel", Endpoint(self, post=Bare(batches.cancel))),
        ]

    def _responses(self) -> list[Route]:
        path = "/v1/responses/{id}"
        create = Json(ResponsesRequest, responses.create)
        return [
            Route("/v1/responses", Endpoint(self, post=create, wire=RESPONSES)),
            Route(path, Endpoint(self, get=responses.retrieve, delete=responses.delete, wire=RESPONSES)),
            Route(path + "/cancel", Endpoint(self, post=Bare(responses.cancel), wire=RESPONSES)),
            Route(path + "/input_items", Endpoint(self, get=responses.input_items, wire=RESPONSES)),
        ]

    def _vectors(self) -> list[Route]:
        """Of models that give vectors. Clients differ in the version of a path, not in what they send."""
        score, rerank = Json(ScoreRequest, scores.score), Json(RerankRequest, scores.rerank)
        posts = {
            "/v1/embeddings": Json(EmbeddingRequest, embeddings.embed),
            "/pooling": Json(PoolingRequest, embeddings.pool),
            "/classify": Json(ClassifyRequest, embeddings.classify),
            "/score": score,
            "/v1/score": score,
            "/rerank": rerank,
            "/v1/rerank": rerank,
            "/v2/rerank": rerank,
        }
        return [Route(path, Endpoint(self, post=post)) for path, post in posts.items()]

    def _anthropic(self, post: Json) -> Endpoint:
        return Endpoint(self, post=post, wire=ANTHROPIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        assert scope["type"] == "http"
        await self._answer(scope, receive, send)

    def dialect(self, engine: Engine) -> Dialect:
        """The output format of an engine that is ready."""
        if (found := self._dialects.get(engine)) is None:
            found = self._dialects[engine] = Dialect.of(engine, self.settings.output_format)
        return found

    def share_of(self, caller: str) -> str:
        """Who a caller is to the engine, which shares itself fairly among them and must not know keys."""
        if not caller:
            return ""
        return hashlib.blake2b(caller.encode(), key=self._secret, digest_size=8).hexdigest()

    def stop_live(self) -> None:
        """End every request in flight with an error event or status 503."""
        for call in list(self.live):
            call.stop()


def build_app(
    engine: Engine | Fleet, settings: ServerSettings | None = None, names: tuple[str, ...] = ()
) -> App:
    """The app that serves a fleet, or one engine under `names` (default: the engine's own name)."""
    if isinstance(engine, Fleet):
        slots = engine.slots()
    else:
        slots = dict.fromkeys(names or (engine.model_name,), Fixed(engine))
    return App(Models(slots), settings or ServerSettings())
