"""Prometheus metrics: vLLM's names with the prefix `tenon:`, in a registry of our own.

Latencies are measured here, where the client sees them; gauges of the engine are read when scraped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenon.core.messages import EngineStats
from tenon.server.deadline import DEADLINES
from tenon.server.slot import Pulse

if TYPE_CHECKING:
    from tenon.server.admission import Admission

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
    640, 2560,
)  # fmt: skip
_PER_TOKEN = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
    20, 40, 80,
)  # fmt: skip
_TOKENS = tuple(m * 10**e for e in range(6) for m in (1, 2, 5))
_CHOICES = (1, 2, 5, 10, 20, 50, 100)

# (attribute, name, help, buckets)
_HISTOGRAMS = (
    ("ttft", "time_to_first_token_seconds", "From arrival to the first token.", _FIRST_TOKEN),
    ("itl", "inter_token_latency_seconds", "Between two tokens of one choice.", _PER_TOKEN),
    ("tpot", "request_time_per_output_token_seconds", "Mean over a request after its first.", _PER_TOKEN),
    ("e2e", "e2e_request_latency_seconds", "From arrival to the last token.", _LATENCY),
    ("queue", "request_queue_time_seconds", "From arrival until the engine took it up.", _LATENCY),
    ("prefill", "request_prefill_time_seconds", "From then to the first token.", _LATENCY),
    ("decode", "request_decode_time_seconds", "From the first token to the last.", _LATENCY),
    ("inference", "request_inference_time_seconds", "Prefill and decode.", _LATENCY),
    ("prompt", "request_prompt_tokens", "Prompt tokens of a request.", _TOKENS),
    ("generation", "request_generation_tokens", "Tokens generated for a request.", _TOKENS),
    ("longest", "request_max_num_generation_tokens", "Tokens of a request's longest choice.", _TOKENS),
    ("max_generation", "request_params_max_tokens", "The max_tokens of a request.", _TOKENS),
    ("n", "request_params_n", "The n of a request.", _CHOICES),
)

# (name, help, value)
_GAUGES: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("num_requests_running", "Requests in the running batch.", lambda s: s.num_requests_running),
    ("num_requests_waiting", "Requests waiting to run.", lambda s: s.num_requests_waiting),
    (
        "kv_cache_usage_perc",
        "Fraction of KV blocks in use; 1 means all.",
        lambda s: s.kv_blocks_used / s.kv_blocks_total if s.kv_blocks_total else 0.0,
    ),
    ("kv_blocks_used", "KV blocks held by requests.", lambda s: s.kv_blocks_used),
    ("kv_blocks_total", "KV blocks of the pool.", lambda s: s.kv_blocks_total),
)
_COUNTERS: tuple[tuple[str, str, Callable[[EngineStats], float]], ...] = (
    ("prefix_cache_queries", "Tokens looked up in the prefix cache.", lambda s: s.prefix_cache_queries),
    ("prefix_cache_hits", "Tokens found in the prefix cache.", lambda s: s.prefix_cache_hits),
    ("num_preemptions", "Requests preempted since start.", lambda s: s.num_preemptions),
    ("engine_steps", "Steps of the engine since start.", lambda s: s.num_steps),
)


class Metrics:
    """All metrics of the server, labelled by model."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()
        self.registry = CollectorRegistry()
        self._histograms = {
            key: Histogram(
                f"tenon:{name}",
                text,
                ["model_name"],
                buckets=[float(b) for b in buckets],
                registry=self.registry,
            )
            for key, name, text, buckets in _HISTOGRAMS
        }
        self.registry.register(_OldName(self._histograms["itl"]))
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of admitted requests.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self._success = self._counter("request_success", "Requests ended.", "finished_reason")
        self._by_key = Counter("tenon:key_requests", "Requests by API key.", ["key"], registry=self.registry)
        self._refused = Counter(
            "tenon:key_refusals", "Requests without a key, or with a wrong one.", registry=self.registry
        )
        self._at_the_door = Counter(
            "tenon:connection_refusals",
            "Connections ended with an error because of their number, their pace, or what is no HTTP.",
            ["code"],
            registry=self.registry,
        )
        self._expired = self._counter("deadlines_expired", "Requests ended by a deadline.", "deadline")
        self._models: dict[str, ModelMetrics] = {}

    def key_used(self, name: str) -> None:
        self._by_key.labels(name).inc()

    def key_refused(self) -> None:
        self._refused.inc()

    def connection_refused(self, code: str) -> None:
        self._at_the_door.labels(code).inc()

    def watch(
        self,
        stats: Callable[[], dict[str, EngineStats]],
        loaded: Callable[[], dict[str, bool]],
        pulses: Callable[[], dict[str, Pulse]],
    ) -> None:
        """Read, by model, the engines' gauges and counters, which of them are there and how they fare, on
        every scrape."""
        self.registry.register(_EngineCollector(stats, loaded, pulses))

    def watch_queues(self, admission: Admission) -> None:
        """Read what waits, and what was refused, on every scrape."""
        self.registry.register(_QueueCollector(admission))

    def expect(self, models: Iterable[str]) -> None:
        """Show what has not happened as zero: a rate needs a value from before the first time."""
        for model in models:
            for deadline in DEADLINES:
                self._expired.labels(model, deadline)

    def expired(self, model: str, deadline: str) -> None:
        """A request has been ended by its deadline "queue", "first_token" or "total"."""
        self._expired.labels(model, deadline).inc()

    def of_model(self, model: str) -> ModelMetrics:
        if (found := self._models.get(model)) is None:
            found = self._models[model] = ModelMetrics(
                model=model,
                prompt_tokens=self._prompt_tokens.labels(model),
                generation_tokens=self._generation_tokens.labels(model),
                success=self._success,
                **{key: histogram.labels(model) for key, histogram in self._histograms.items()},
            )
        return found

    def render(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tenon:{name}", text, ["model_name", *labels], registry=self.registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetrics:
    """The metrics of one model, with the label looked up once: they are touched for every token."""

    model: str
    prompt_tokens: Counter
    generation_tokens: Counter
    success: Counter
    ttft: Histogram
    itl: Histogram
    tpot: Histogram
    e2e: Histogram
    queue: Histogram
    prefill: Histogram
    decode: Histogram
    inference: Histogram
    prompt: Histogram
    generation: Histogram
    longest: Histogram
    max_generation: Histogram
    n: Histogram

    def pooled(self, arrival: float, prompt_tokens: int) -> None:
        """A request for vectors, which arrived at `arrival` (time.monotonic), has been computed."""
        self.prompt_tokens.inc(prompt_tokens)
        self.prompt.observe(prompt_tokens)
        self.e2e.observe(time.monotonic() - arrival)
        self.success.labels(self.model, "stop").inc()

    def start(self, arrival: float, prompt_tokens: int, n: int, max_tokens: int) -> RequestMeter:
        """Meter of a request that arrived at `arrival` (time.monotonic)."""
        return RequestMeter(self, arrival, prompt_tokens, n, max_tokens)


class RequestMeter:
    """Times one request. A context manager: leaving it early counts as an abort, or an error if raised."""

    def __init__(
        self, metrics: ModelMetrics, arrival: float, prompt_tokens: int, n: int, max_tokens: int
    ) -> None:
        self._queued = 0.0  # seconds from arrival until the engine took it up, as the engine says
        self._metrics = metrics
        self._arrival = arrival
        self._prompt_tokens = prompt_tokens
        self._n = n
        self._max_tokens = max_tokens
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._generated: dict[int, int] = {}  # tokens of each choice
        self._reasons: list[str] = []

    def __enter__(self) -> RequestMeter:
        return self

    def taken_up(self, seconds: float) -> None:
        """The engine has begun with it, after so long."""
        self._queued = seconds
        self._metrics.queue.observe(seconds)

    def delta(self, index: int, tokens: int, finish_reason: str | None) -> None:
        """`tokens` new tokens of a choice have arrived."""
        now = time.monotonic()
        if tokens:
            if self._first is None:
                self._first = now
                self._metrics.ttft.observe(now - self._arrival)
                self._metrics.prompt_tokens.inc(self._prompt_tokens)
            if (last := self._last.get(index)) is not None:
                for _ in range(tokens):
                    self._metrics.itl.observe((now - last) / tokens)
            self._last[index] = now
            self._generated[index] = self._generated.get(index, 0) + tokens
            self._metrics.generation_tokens.inc(tokens)
        if finish_reason is not None:
            self._reasons.append(finish_reason)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        metrics = self._metrics
        if len(self._reasons) < self._n:
            reason = "error" if isinstance(error, Exception) else "abort"
            metrics.success.labels(metrics.model, reason).inc()
            return
        now = time.monotonic()
        metrics.success.labels(metrics.model, self._reasons[0]).inc()
        metrics.prompt.observe(self._prompt_tokens)
        generated = sum(self._generated.values())
        metrics.generation.observe(generated)
        metrics.longest.observe(max(self._generated.values(), default=0))
        metrics.max_generation.observe(self._max_tokens)
        metrics.n.observe(self._n)
        metrics.e2e.observe(now - self._arrival)
        metrics.inference.observe(now - self._arrival - self._queued)
        if self._first is None:
            return
        metrics.prefill.observe(self._first - self._arrival - self._queued)
        metrics.decode.observe(now - self._first)
        after_first = generated - self._n
        if after_first > 0:
            # Choices run side by side: the time per token is that of one choice.
            metrics.tpot.observe((now - self._first) * self._n / after_first)


class _OldName(Collector):
    """inter_token_latency_seconds once more under its old name, which older dashboards ask for."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for metric in self._histogram.collect():
            old = Metric(
                "tenon:time_per_output_token_seconds", "Old name of inter_token_latency.", "histogram"
            )
            for sample in metric.samples:
                name = sample.name.replace("inter_token_latency", "time_per_output_token")
                old.add_sample(name, sample.labels, sample.value)
            yield old


class _QueueCollector(Collector):
    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        labels = ["model_name", "queue"]
        requests = GaugeMetricFamily(
            "tenon:queued_requests", "Choices of requests that wait for the engine.", labels=labels
        )
        tokens = GaugeMetricFamily("tenon:queued_tokens", "Tokens of their prompts.", labels=labels)
        for (model, attended), queue in self._admission.queues.items():
            kind = "foreground" if attended else "background"
            requests.add_metric([model, kind], queue.total.choices)
            tokens.add_metric([model, kind], queue.total.tokens)
        refused = CounterMetricFamily(
            "tenon:requests_refused", "Requests that were answered 429.", labels=["model_name", "reason"]
        )
        for (model, reason), count in self._admission.refusals.items():
            refused.add_metric([model, reason], count)
        yield from (requests, tokens, refused)


class _EngineCollector(Collector):
    def __init__(
        self,
        stats: Callable[[], dict[str, EngineStats]],
        loaded: Callable[[], dict[str, bool]],
        pulses: Callable[[], dict[str, Pulse]],
    ) -> None:
        self._stats = stats
        self._loaded = loaded
        self._pulses = pulses

    def describe(self) -> Iterator[Metric]:
        """Asked for at registration, before there is an engine."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        here = GaugeMetricFamily(
            "tenon:model_loaded", "1 while the model is loaded, else 0.", labels=["model_name"]
        )
        for model, loaded in self._loaded().items():
            here.add_metric([model], float(loaded))
        yield here
        restarts = CounterMetricFamily(
            "tenon:engine_restarts", "Restarts of an engine that had died.", labels=["model_name"]
        )
        age = GaugeMetricFamily(
            "tenon:engine_heartbeat_age_seconds",
            "For how long the engine has shown no progress; it does every two seconds, idle or not.",
            labels=["model_name"],
        )
        for model, pulse in self._pulses().items():
            restarts.add_metric([model], pulse.restarts)
            age.add_metric([model], pulse.heartbeat_age)
        yield from (restarts, age)
        models = self._stats()
        for family, rows in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, text, value in rows if models else ():
                metric = family(f"tenon:{name}", text, labels=["model_name"])
                for model, stats in models.items():
                    metric.add_metric([model], value(stats))
                yield metric
