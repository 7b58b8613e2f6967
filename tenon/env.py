"""Every environment variable that tenon reads, in one place.

But for TENON_NUM_THREADS (threads of the pool), which the native kernels read themselves when they are first
used (tenon/kernels/cpu/native/base/pool.cpp), as they do TENON_CPU_ISA (base/isa.cpp). `tenon.kernels.cpu`
turns into a ConfigError what they ask for and this machine does not have.
"""

from __future__ import annotations

import os
from pathlib import Path

from tenon.errors import ConfigError


def cpu_isa() -> str | None:
    """TENON_CPU_ISA: the instruction set that kernels must use: amx, avx512-vnni, avx512, avx2 or
    baseline."""
    return os.environ.get("TENON_CPU_ISA") or None


def backend() -> str | None:
    """TENON_BACKEND: force one op backend (`cpu` or `reference`) for every op."""
    return os.environ.get("TENON_BACKEND") or None


def cache_dir() -> Path:
    """TENON_HOME: where pulled models are kept (default: XDG cache, `~/.cache/tenon`)."""
    if home := os.environ.get("TENON_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon"


def data_dir() -> Path:
    """Below TENON_HOME: where `tenon serve` keeps files and batches unless told otherwise."""
    return cache_dir() / "data"


def download_timeout() -> float:
    """TENON_DOWNLOAD_TIMEOUT: seconds in which a download of a model must get on."""
    given = os.environ.get("TENON_DOWNLOAD_TIMEOUT") or "120"
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(f"TENON_DOWNLOAD_TIMEOUT={given}: must be seconds, more than 0")
    return seconds


def log_level() -> str:
    """TENON_LOG_LEVEL: debug, info, warning or error."""
    return os.environ.get("TENON_LOG_LEVEL", "info")


def api_key() -> str | None:
    """TENON_API_KEY: the key `tenon serve` asks of clients, and `tenon chat --url` sends."""
    return os.environ.get("TENON_API_KEY") or None


def forget_api_key() -> None:
    """Processes that are started from now on do not get it."""
    os.environ.pop("TENON_API_KEY", None)


def failpoints() -> str:
    """TENON_FAILPOINTS: faults that tests have happen (tenon/util/failpoint.py). Never set in service."""
    return os.environ.get("TENON_FAILPOINTS", "")


def tokenize_in_one_thread() -> None:
    """Texts are tokenised one at a time, in whatever thread asks: `tokenizers` must start none of its own,
    which a fork would lose."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def child_environment(**changes: str) -> dict[str, str]:
    """The whole environment, with changes, for a process that tenon starts."""
    return {**os.environ, **changes}


def given() -> dict[str, str]:
    """Every TENON_* variable that is set, and HF_HUB_OFFLINE; secrets are not shown."""
    names = sorted(name for name in os.environ if name.startswith("TENON_") or name == "HF_HUB_OFFLINE")
    return {name: "(set)" if name.endswith("_KEY") else os.environ[name] for name in names}
