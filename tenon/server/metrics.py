"""Prometheus metrics: vLLM's names with the prefix `tenon:`, in a registry of our own.

Latencies are measured here, where the client sees them; gauges of the engine are read when scraped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenon.core.messages import EngineStats

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
    ("tpot_old", "time_per_output_token_seconds", "Old name of inter_token_latency_seconds.", _PER_TOKEN),
    ("e2e", "e2e_request_latency_seconds", "From arrival to the last token.", _LATENCY),
    ("prompt", "request_prompt_tokens", "Prompt tokens of a request.", _TOKENS),
    ("generation", "request_generation_tokens", "Tokens generated for a request.", _TOKENS),
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
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of admitted requests.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self._success = self._counter("request_success", "Requests ended.", "finished_reason")

    def watch(self, model: str, stats: Callable[[], EngineStats | None]) -> None:
        """Read an engine's gauges and counters on every scrape; None while there is nothing to say."""
        self.registry.register(_EngineCollector(model, stats))

    def start(self, model: str, arrival: float, prompt_tokens: int, n: int, max_tokens: int) -> RequestMeter:
        return RequestMeter(self, model, arrival, prompt_tokens, n, max_tokens)

    def render(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)

    def observe(self, key: str, model: str, value: float) -> None:
        self._histograms[key].labels(model).observe(value)

    def count_tokens(self, model: str, *, prompt: int = 0, generated: int = 0) -> None:
        if prompt:
            self._prompt_tokens.labels(model).inc(prompt)
        if generated:
            self._generation_tokens.labels(model).inc(generated)

    def count_end(self, model: str, reason: str) -> None:
        self._success.labels(model, reason).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tenon:{name}", text, ["model_name", *labels], registry=self.registry)


class RequestMeter:
    """Times one request. A context manager: leaving it early counts as an abort, or an error if raised."""

    def __init__(
        self, metrics: Metrics, model: str, arrival: float, prompt_tokens: int, n: int, max_tokens: int
    ) -> None:
        self._metrics = metrics
        self._model = model
        self._arrival = arrival
        self._prompt_tokens = prompt_tokens
        self._n = n
        self._max_tokens = max_tokens
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._generated = 0
        self._reasons: list[str] = []

    def __enter__(self) -> RequestMeter:
        return self

    def delta(self, index: int, tokens: int, finish_reason: str | None) -> None:
        """`tokens` new tokens of a choice have arrived."""
        now = time.monotonic()
        if tokens and self._first is None:
            self._first = now
            self._metrics.observe("ttft", self._model, now - self._arrival)
            self._metrics.count_tokens(self._model, prompt=self._prompt_tokens)
        if tokens:
            self._observe_gap(index, tokens, now)
        if finish_reason is not None:
            self._reasons.append(finish_reason)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now = time.monotonic()
        if len(self._reasons) < self._n:
            self._metrics.count_end(self._model, "error" if isinstance(error, Exception) else "abort")
            return
        self._metrics.count_end(self._model, self._reasons[0])
        self._metrics.observe("e2e", self._model, now - self._arrival)
        self._metrics.observe("prompt", self._model, self._prompt_tokens)
        self._metrics.observe("generation", self._model, self._generated)
        self._metrics.observe("max_generation", self._model, self._max_tokens)
        self._metrics.observe("n", self._model, self._n)
        after_first = self._generated - self._n
        if self._first is not None and after_first > 0:
            # Choices run side by side: the time per token is that of one choice.
            self._metrics.observe("tpot", self._model, (now - self._first) * self._n / after_first)

    def _observe_gap(self, index: int, tokens: int, now: float) -> None:
        if (last := self._last.get(index)) is not None:
            for _ in range(tokens):
                self._metrics.observe("itl", self._model, (now - last) / tokens)
                self._metrics.observe("tpot_old", self._model, (now - last) / tokens)
        self._last[index] = now
        self._generated += tokens
        self._metrics.count_tokens(self._model, generated=tokens)


class _EngineCollector(Collector):
    def __init__(self, model: str, stats: Callable[[], EngineStats | None]) -> None:
        self._model = model
        self._stats = stats

    def describe(self) -> Iterator[Metric]:
        """Several engines give the same names: say none at registration."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        if stats is None:
            return
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"tenon:{name}", text, labels=["model_name"])
            gauge.add_metric([self._model], value(stats))
            yield gauge
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"tenon:{name}", text, labels=["model_name"])
            counter.add_metric([self._model], value(stats))
            yield counter
