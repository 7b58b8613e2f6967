"""`python -m fuzz [TARGET ...] [--seconds N] [--plain] [--seed N]`: fuzz each target in a process of its own.

Exit code 1 when something was found; what did it lies in build/fuzz/<target>/.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import subprocess
import sys
import time

from fuzz import session


def main() -> int:
    options = _options()
    if options.inside:
        _inside(options)
        return 0
    return max(_outside(name, options) for name in options.targets or session.names())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(session.names())}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: 60)")
    parser.add_argument("--plain", action="store_true", help="random damage only: needs no atheris")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31), help="of the random damage")
    parser.add_argument("--patience", type=float, default=1.0, help="times the time an input may take")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.targets) - set(session.names()):
        parser.error(f"there is no target {min(unknown)}; there are {', '.join(session.names())}")
    if not options.plain and importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install 'tenon[fuzz]', or give --plain")
    return options


def _outside(name: str, options: argparse.Namespace) -> int:
    """Run a target in a child, which native code may bring down. 1 if it did, or found anything else."""
    command = [sys.executable, "-m", "fuzz", name, "--inside", f"--seconds={options.seconds}"]
    command += [
        f"--seed={options.seed}",
        f"--patience={options.patience}",
        *(["--plain"] if options.plain else []),
    ]
    directory = session.FINDINGS / name
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("finding-*"):
        path.unlink()
    session.current(name).unlink(missing_ok=True)
    begin = time.monotonic()
    code = subprocess.run(command, check=False, env={**os.environ, "RUST_BACKTRACE": "0"}).returncode
    if code != 0 and session.current(name).exists():
        path = session.save(directory, session.progress(name)[1])
        print(
            f"FINDING {name}: the process ended with {code} (seed {options.seed})\n  {path}", file=sys.stderr
        )
    found = list(directory.glob("finding-*"))
    count = session.progress(name)[0] if session.current(name).exists() else 0
    print(f"{name}: {count} inputs in {time.monotonic() - begin:.0f} s, {len(found)} findings", flush=True)
    return int(code != 0 or bool(found))


def _inside(options: argparse.Namespace) -> None:
    (name,) = options.targets
    if options.plain:
        session.be_quiet()
        one = session.Session(name, options.patience)
        one.run(options.seconds, options.seed)
        return
    from fuzz import guided

    guided.run(name, options.seconds, options.seed)


if __name__ == "__main__":
    sys.exit(main())
