"""Every environment variable that tenon reads, in one place.

But for two, which the native kernels read themselves when they are first used, and `tenon.kernels.cpu` turns
into a ConfigError when they ask for what is not there: TENON_CPU_ISA (force amx, avx512, avx2 or baseline;
tenon/kernels/cpu/native/base/isa.cpp) and TENON_NUM_THREADS (threads of the pool; native/base/pool.cpp).
"""

from __future__ import annotations

import os
from pathlib import Path


def backend() -> str | None:
    """TENON_BACKEND: force one op backend (`cpu` or `reference`) for every op."""
    return os.environ.get("TENON_BACKEND") or None


def cache_dir() -> Path:
    """TENON_HOME: where pulled models are kept (default: XDG cache, `~/.cache/tenon`)."""
    if home := os.environ.get("TENON_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon"


def log_level() -> str:
    """TENON_LOG_LEVEL: debug, info, warning or error."""
    return os.environ.get("TENON_LOG_LEVEL", "info")


def api_key() -> str | None:
    """TENON_API_KEY: the key `tenon serve` asks of clients, and `tenon chat --url` sends."""
    return os.environ.get("TENON_API_KEY") or None


def child_environment(**changes: str) -> dict[str, str]:
    """The whole environment, with changes, for a process that tenon starts."""
    return {**os.environ, **changes}


def given() -> dict[str, str]:
    """Every TENON_* variable that is set, and HF_HUB_OFFLINE; secrets are not shown."""
    names = sorted(name for name in os.environ if name.startswith("TENON_") or name == "HF_HUB_OFFLINE")
    return {name: "(set)" if name.endswith("_KEY") else os.environ[name] for name in names}
