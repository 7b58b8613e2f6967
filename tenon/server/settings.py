"""What the HTTP server is told at start, apart from the engine's own arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tenon.engine.heartbeat import Patience
from tenon.server.keys import Keys
from tenon.server.limits import Limits
from tenon.server.reload import Watched

if TYPE_CHECKING:
    from tenon.server.tls import Certificate


@dataclass(frozen=True, slots=True)
class RestartSettings:
    """How often the engine of a model may be restarted within `window_seconds`, before it is given up."""

    max_restarts: int = 5
    window_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`keys` are hashes of the API keys; without any, only `insecure` lets a server listen beyond this
    machine. `public_metrics` lets anybody scrape /metrics. `allowed_hosts` are the names that the server
    answers to (empty: all) and `cors_origins` the pages of elsewhere that may use it.
    `log_requests`: the log holds what is asked and answered. `admin_socket`: path of the Unix socket of the
    operator's routes (None: there are none).

    `default_sampling` are SamplingParams fields used where a request says nothing (from the model's
    generation_config, if the operator chose that). `sse_keep_alive_seconds`: after so long without an event a
    stream gets a comment (0: never). `drain_seconds`: how long requests in flight may go
    on after a stop signal. `output_format` is a name of tenon.parse.formats, or auto; `reasoning_content`
    sends reasoning under that name too; `template_variables` may be set by requests besides the usual ones.
    `limits` bound what clients may send and what is kept for them. `data_dir` keeps files and batches (None:
    below TENON_HOME); `batch_concurrency`: so many lines of batches run at a time. `special_tokens`: where
    clients' text that spells a control token becomes one: in prompts that are no chat, in all text, nowhere.
    `restarts`: of engines that die; `patience` with those that hang.
    """

    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys, repr=False)
    insecure: bool = False
    public_metrics: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    log_requests: bool = False
    admin_socket: Path | None = None
    tls: Certificate | None = field(default=None, repr=False)
    default_sampling: dict[str, Any] = field(default_factory=dict)
    sse_keep_alive_seconds: float = 15.0
    drain_seconds: float = 25.0
    share_prefix_cache: bool = False
    output_format: str = "auto"
    reasoning_content: bool = False
    template_variables: tuple[str, ...] = ()
    data_dir: Path | None = None
    batch_concurrency: int = 8
    special_tokens: Literal["prompts", "all", "none"] = "prompts"
    restarts: RestartSettings = RestartSettings()
    patience: Patience = field(default_factory=Patience)

    @property
    def watched(self) -> list[Watched]:
        """The files that are read again when they change."""
        found = (self.keys.watched, self.tls.watched if self.tls else None)
        return [each for each in found if each is not None]

    @classmethod
    def with_keys(cls, keys: list[str] | tuple[str, ...], **rest: Any) -> ServerSettings:
        return cls(keys=Keys.of(*keys), **rest)


@dataclass(frozen=True, slots=True)
class ResidencySettings:
    """Of several models: how many, and how many bytes of weights and KV caches, are loaded at a time (None:
    all, and what memory allows), and how long a request waits for its model."""

    max_models: int | None = None
    max_bytes: int | None = None
    wait_seconds: float = 120.0
