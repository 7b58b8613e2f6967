"""Offline inference: `LLM(model).generate(prompts, params)`. The engine runs in this process."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tenon.config import DEFAULT_MODEL, make_args
from tenon.core.messages import Abort, AddRequest
from tenon.core.outputs import PoolingRequestOutput, RequestOutput, ScoringRequestOutput
from tenon.core.pooling import PoolingParams
from tenon.core.sampling import SamplingParams
from tenon.engine.client import InProcessClient
from tenon.engine.frontend import Frontend, Generation, Prompt
from tenon.engine.pooling_frontend import (
    Pooling,
    PoolingFrontend,
    PoolingInput,
    encode_input,
    token_limit,
)
from tenon.errors import InvalidRequest
from tenon.util import terminal

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Message = Mapping[str, Any]


class LLM:
    """A model, loaded and ready. Engine arguments are those of `tenon.config.EngineArgs`.

    Raises ModelNotFound, ModelFileError or ConfigError when it cannot be loaded as asked. Not thread-safe.
    """

    def __init__(self, model: str = DEFAULT_MODEL, **engine_args: Any) -> None:
        from tenon.engine.tokenizer import load_tokenizer_for

        config = make_args(model=model, **engine_args).resolve()
        with terminal.loading(config.served_model_name[0]) as on_loading:
            self._client = InProcessClient(config, on_loading)
            info = self._client.load()
        make = Frontend if info.pooling is None else PoolingFrontend
        tokenizer = load_tokenizer_for(config)
        if config.chat_template is not None and tokenizer.chat_template is not None:
            from tenon.text.chat import check_template

            check_template(tokenizer.chat_template)
        self._any_frontend = make(tokenizer, info, config)

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens."""
        return self._any_frontend.info.max_model_len

    def get_tokenizer(self) -> Tokenizer:
        tokenizer = self._any_frontend.tokenizer
        assert tokenizer is not None
        return tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Outputs in the order of the prompts.

        A prompt is text, or `{"prompt_token_ids": [...]}`; one alone need not be in a list. One set of
        parameters holds for all prompts, a list gives each its own. Raises InvalidRequest for a wrong one;
        a request that fails on its way ends with the finish reason "error", and the others go on.
        """
        prompts = _listed(prompts)
        count = len(prompts)
        params = _one_each("sampling_params", _params(sampling_params), count)
        priorities = [0] * count if priority is None else _one_each("priority", priority, count)
        generations: list[Generation] = []
        adds: list[AddRequest] = []
        try:
            for index, (prompt, own, rank) in enumerate(zip(prompts, params, priorities, strict=True)):
                with _naming(f"prompts[{index}]" if count > 1 else ""):
                    generation, messages = self._frontend.add(prompt, own, priority=rank)
                generations.append(generation)
                adds += messages
            self._client.send(adds)
            with _ProgressBar(generations, use_tqdm) as bar:
                self._run(bar)
        except BaseException:  # an interrupt, too: the next call finds an empty engine
            self._abort(generations)
            raise
        for generation in generations:
            if isinstance(generation.error, InvalidRequest):  # its grammar is wrong: known only to the engine
                raise generation.error
            if generation.error is not None:
                log.error("request %s failed: %s", generation.request_id, generation.error)
        return [generation.snapshot() for generation in generations]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        special_tokens_in_messages: bool = False,
    ) -> list[RequestOutput]:
        """Like `generate`, for one conversation or a list of them, through the model's chat template.

        Text of messages that spells a control token, like `<|im_end|>`, is that text to the model, unless
        `special_tokens_in_messages`.
        """
        from tenon.text.chat import render
        from tenon.text.conversation import Conversation

        tokenizer = self.get_tokenizer()
        single = bool(messages) and isinstance(messages[0], Mapping)
        conversations = cast("list[Sequence[Message]]", [messages] if single else messages)
        prompts: list[Prompt] = []
        given = _params(sampling_params)
        params = _one_each("sampling_params", given, len(conversations))
        for index, conversation in enumerate(conversations):
            rendered = render(
                Conversation(
                    messages=conversation,
                    template=chat_template,
                    tools=tools,
                    variables=dict(chat_template_kwargs or {}),
                    add_generation_prompt=add_generation_prompt,
                    plain=not special_tokens_in_messages,
                ),
                tokenizer,
            )
            prompts.append({"prompt_token_ids": rendered.encode(tokenizer)})
            if params[index].structured_outputs or params[index].thinking_token_budget is not None:
                params[index] = self._held(params[index], rendered.text, chat_template)
        return self.generate(prompts, params, use_tqdm)

    def _held(self, params: SamplingParams, prompt: str, chat_template: str | None) -> SamplingParams:
        """Parameters that hold an answer to a grammar or a budget, in the model's output format."""
        from tenon.grammar.answer import in_format
        from tenon.grammar.values import Inexpressible
        from tenon.parse import detect, formats

        tokenizer = self.get_tokenizer()
        name = detect.detect(chat_template or "\n".join(tokenizer.chat_templates.values()))
        special = {tokenizer.token_text(token): token for token in tokenizer.special_ids}
        try:
            outputs, thinking = in_format(
                formats.load(name),
                params.structured_outputs,
                None,
                encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
                special=special,
                tail=prompt[-256:],
            )
        except Inexpressible as error:
            raise InvalidRequest(
                f"structured_outputs cannot be enforced in the output format {name}: {error}",
                "structured_outputs",
            ) from None
        return msgspec.structs.replace(
            params, structured_outputs=outputs, thinking=params.thinking or thinking
        )

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        pooling_params: PoolingParams | None = None,
        *,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput]:
        """Vectors of a model that gives them, in the order of the prompts; `outputs.data` are arrays.

        PoolingParams(task="token_embed") gives a vector for each token. `truncate_prompt_tokens` cuts off the
        ends of longer prompts, -1 at what the model takes. Raises InvalidRequest before anything runs.
        """
        params = pooling_params or PoolingParams(task=self._pooling_frontend.spec.task)
        limit = token_limit(truncate_prompt_tokens, self.max_model_len)
        tokenizer = self._any_frontend.tokenizer
        return self._pool(
            [encode_input(tokenizer, prompt, limit=limit) for prompt in _listed(prompts)], params
        )

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput]:
        """Embeddings, in the order of the prompts: `outputs.embedding` is a float32 array."""
        params = pooling_params or PoolingParams(task="embed")
        return self.encode(prompts, params, truncate_prompt_tokens=truncate_prompt_tokens)

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput]:
        """A classifier's numbers: `outputs.probs` has one for each label."""
        params = pooling_params or PoolingParams(task="classify")
        return self.encode(prompts, params, truncate_prompt_tokens=truncate_prompt_tokens)

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        *,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ScoringRequestOutput]:
        """How well texts go together: one with each of many, or pair by pair.

        By a cross-encoder, or else by the cosine similarity of embeddings.
        """
        from tenon.engine.scoring import Scoring

        limit = token_limit(truncate_prompt_tokens, self.max_model_len)
        scoring = Scoring(self._pooling_frontend.spec, data_1, data_2)
        tokenizer = self._any_frontend.tokenizer
        inputs = [encode_input(tokenizer, *texts, limit=limit) for texts in scoring.inputs]
        return scoring.scores(self._pool(inputs, scoring.params))

    @property
    def _frontend(self) -> Frontend:
        frontend = self._any_frontend
        if isinstance(frontend, PoolingFrontend):
            raise InvalidRequest(
                "this model does not generate text: use embed, classify, score or encode", "model"
            )
        return frontend

    @property
    def _pooling_frontend(self) -> PoolingFrontend:
        frontend = self._any_frontend
        if isinstance(frontend, Frontend):
            raise InvalidRequest(
                'this model generates text and gives no vectors; LLM(model, convert="embed") gives some',
                "model",
            )
        return frontend

    def _pool(self, inputs: list[PoolingInput], params: PoolingParams) -> list[PoolingRequestOutput]:
        frontend = self._pooling_frontend
        poolings: list[Pooling] = []
        adds: list[AddRequest] = []
        try:
            for index, given in enumerate(inputs):
                name = f"prompts[{index}]" if len(inputs) > 1 else "prompt"
                pooling, messages = frontend.add(given, params, name=name)
                poolings.append(pooling)
                adds += messages
            self._client.send(adds)
            while frontend.generations or self._client.has_work:
                frontend.apply(self._client.step())
        except BaseException:
            self._abort(poolings)
            raise
        return [pooling.result for pooling in poolings]

    def _run(self, bar: _ProgressBar) -> None:
        while self._frontend.generations or self._client.has_work:
            if aborts := self._frontend.apply(self._client.step()):
                self._client.send([Abort(aborts)])
            bar.update()

    def _abort(self, generations: Sequence[Generation | Pooling]) -> None:
        frontend = self._any_frontend
        children = [child for g in generations for child in frontend.abort(g.request_id)]
        self._client.send([Abort(children)])
        self._client.step()


def _listed(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str | dict):
        return [cast("Prompt", prompts)]
    if not isinstance(prompts, Iterable) or isinstance(prompts, bytes):
        raise InvalidRequest(
            f"prompts must be text, token ids, or a list of them, not {prompts!r}", "prompts"
        )
    listed = list(cast("Sequence[Prompt]", prompts))
    if listed and all(isinstance(item, int) for item in listed):
        return [cast("Prompt", listed)]  # one prompt, as token ids
    return listed


def _params(given: Any) -> SamplingParams | Sequence[SamplingParams]:
    """What generate was given as sampling_params. Raises InvalidRequest for anything else."""
    if given is None:
        return SamplingParams()
    if isinstance(given, SamplingParams):
        return given
    if isinstance(given, list | tuple) and all(isinstance(one, SamplingParams) for one in given):
        return given
    raise InvalidRequest(
        f"sampling_params must be SamplingParams, or a list of them, not {type(given).__name__}: write "
        "SamplingParams(temperature=0, ...)",
        "sampling_params",
    )


@contextlib.contextmanager
def _naming(which: str) -> Iterator[None]:
    """Put `which` prompt it was in front of the message of an InvalidRequest."""
    try:
        yield
    except InvalidRequest as error:
        if not which:
            raise
        raise InvalidRequest(f"{which}: {error}", error.param, error.code) from None


def _one_each(name: str, values: Any, count: int) -> list[Any]:
    if isinstance(values, SamplingParams):
        return [values] * count
    if len(values) != count:
        raise InvalidRequest(f"{name} has {len(values)} entries for {count} prompts", name)
    return list(values)


class _ProgressBar:
    """Requests done and tokens per second, on standard error."""

    SECONDS = 0.1  # between updates

    def __init__(self, generations: list[Generation], show: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._generations = generations
        self._bar = Progress(
            TextColumn("generating"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]:.0f} tokens/s"),
            console=Console(stderr=True),
            disable=not show,
        )
        self._task = self._bar.add_task("", total=len(generations), rate=0.0)
        self._begin = time.monotonic()
        self._due = 0.0

    def update(self, *, now: bool = False) -> None:
        elapsed = time.monotonic() - self._begin
        if elapsed < self._due and not now:
            return
        self._due = elapsed + self.SECONDS
        tokens = sum(len(choice.token_ids) for g in self._generations for choice in g.choices)
        done = sum(generation.finished for generation in self._generations)
        self._bar.update(self._task, completed=done, rate=tokens / max(elapsed, 1e-9))

    def __enter__(self) -> _ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update(now=True)
        self._bar.stop()
