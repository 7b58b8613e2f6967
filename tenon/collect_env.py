"""What this machine and this installation are, for bug reports and for the rows of benchmark tables."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tenon import env

# CPU features that decide which kernels run.
FEATURES = (
    "fma avx2 f16c avx512f avx512bw avx512vl avx512dq avx512_vbmi avx512_vnni avx512_bf16 avx512_fp16 "
    "amx_tile amx_int8 amx_bf16 asimd asimddp i8mm bf16 sve"
).split()

PACKAGES = (
    "numpy ml-dtypes msgspec tokenizers jinja2 pyzmq click rich psutil starlette uvicorn h11 uvloop "
    "prometheus-client huggingface-hub torch transformers nanobind"
).split()


def version(package: str) -> str | None:
    """Version of an installed distribution; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """Short commit of the source tree, "-dirty" when it was changed; the version outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return version("tenon") or "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def cpu() -> dict[str, str]:
    """Name of the processor and those of its features that tenon has kernels for (Linux)."""
    fields = _fields(Path("/proc/cpuinfo"), first_block=True)
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "name": fields.get("model name") or platform.processor() or platform.machine(),
        "features": " ".join(feature for feature in FEATURES if feature in flags),
    }


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """One line for a table: processor and cores."""
    return f"{cpu()['name']} x{usable_cores()}"


def collect() -> dict[str, dict[str, str]]:
    """Facts by section, in the order to show them."""
    processor = cpu()
    return {
        "tenon": {
            "version": version("tenon") or "not installed",
            "commit": commit(),
            "kernels": kernels(),
            "python": f"{platform.python_version()} ({sys.executable})",
        },
        "machine": {
            "system": f"{platform.platform()}, {_distribution()}",
            "processor": processor["name"],
            "cores": f"{usable_cores()} usable of {os.cpu_count()}",
            "features": processor["features"] or "none that tenon knows",
            "memory": _memory(),
            "huge pages": _read(Path("/sys/kernel/mm/transparent_hugepage/enabled")) or "unknown",
        },
        "packages": {name: version(name) or "-" for name in PACKAGES},
        "environment": env.given() or {"TENON_*": "none set"},
    }


def kernels() -> str:
    """Each backend with what it runs here, or why it does not run."""
    from tenon.ops import select

    return "; ".join(f"{name}: {_kernel(name)}" for name in select.backends() if name != select.REFERENCE)


def _kernel(backend: str) -> str:
    try:
        package = importlib.import_module(f"tenon.kernels.{backend}")
        reason: str | None = package.support()
        return reason or str(package.describe())
    except Exception as error:  # whatever is wrong with the build is the fact to report
        return f"{type(error).__name__}: {error}"


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    limit = _read(Path("/sys/fs/cgroup/memory.max"))
    cgroup = f", cgroup limit {int(limit) / 2**30:.1f} GiB" if limit and limit.isdigit() else ""
    return f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB{cgroup}"


def _distribution() -> str:
    return _fields(Path("/etc/os-release"), separator="=").get("PRETTY_NAME", "unknown").strip('"')


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _fields(path: Path, separator: str = ":", *, first_block: bool = False) -> dict[str, str]:
    """`name<separator>value` lines of a file, perhaps up to its first empty line."""
    text = _read(path)
    if first_block:
        text = text.split("\n\n", 1)[0]
    pairs = (line.partition(separator) for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
