"""Access, counted: requests without a good key that get past it (G10), words of users in what a server writes
(G11), decoders that run code and sockets that listen (G7).

    python -m bench.reliability.access
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from tenon.server.settings import ServerSettings
from tests.server import test_access as access
from tests.server.fake_engine import FakeEngine
from tests.server.serving import serving

CHECKS = {
    "G7 no decoder that runs code, one listening TCP socket": ["tests/lint"],
    "G11 no word of a user in any sink": ["tests/e2e/test_secrets.py"],
}


async def keyless() -> tuple[int, int]:
    """Requests without a good key to closed routes, and those of them that were answered."""
    asked = passed = 0
    async with serving(FakeEngine(), ServerSettings.with_keys([access.KEY])) as (url, app):
        socket = access.Socket(int(url.rpartition(":")[2]))
        for path in access.paths(app, public=False):
            ways = [(method, path, headers) for method in access.METHODS for headers in access.WITHOUT]
            ways += [(method, target, "") for target in access.spellings(path) for method in ("GET", "POST")]
            for method, target, headers in ways:
                status, _ = await socket.ask(method, target, headers)
                asked += 1
                passed += status not in (400, 401) and not target.startswith("/ui/")
        socket.close()
    return asked, passed


def main() -> int:
    asked, passed = asyncio.run(keyless())
    good = not passed
    print(f"G10 requests without a good key that get past it: goal 0, {passed} of {asked}, {_word(good)}")
    for goal, tests in CHECKS.items():
        command = [sys.executable, "-m", "pytest", "-q", *tests]
        done = subprocess.run(command, capture_output=True, text=True)
        good &= not done.returncode
        print(f"{goal}: goal 0, {done.stdout.strip().splitlines()[-1]}, {_word(not done.returncode)}")
    return 0 if good else 1


def _word(good: bool) -> str:
    return "pass" if good else "FAIL"


if __name__ == "__main__":
    sys.exit(main())
