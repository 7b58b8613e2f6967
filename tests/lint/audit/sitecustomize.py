"""Ends every Python process that is started with this folder on PYTHONPATH as soon as it turns data into
code.

Audit events (PEP 578) tell of `exec`, `compile`, `marshal.loads` and of classes that a pickle asks for,
whoever calls them. Importing a module is all of the first three; so the code that asks is looked at: the
import system and the few libraries named here may, nothing else. What was seen goes to TENON_TEST_AUDIT.
"""

from __future__ import annotations

import os
import sys
import traceback

# Who may, and why. Their input is the library's own, or code that is no client's.
ALLOWED = {
    "<frozen importlib._bootstrap>": "imports",
    "<frozen importlib._bootstrap_external>": "imports",
    "/collections/__init__.py": "namedtuple makes its methods",
    "/dataclasses.py": "dataclass makes its methods",
    "/runpy.py": "python -m",
    "<frozen runpy>": "python -m",
    "/site.py": ".pth files of installed packages",
    "<frozen site>": ".pth files of installed packages",
    "/jinja2/environment.py": "a chat template of the operator's becomes a function, in the sandbox",
    "/jinja2/compiler.py": "the same",
    "/typing.py": "names of types in annotations, of modules",
    "/inspect.py": "the same",
    "/anyio/_lazyimport.py": "anyio reads its own source",
    "/prometheus_client/decorator.py": "it makes functions with the signature of others",
}
REPORT = os.environ.get("TENON_TEST_AUDIT", "")
ABORT = os.environ.get("TENON_TEST_AUDIT_ABORT", "1") == "1"
STATUS = 86


def _watch(event: str, arguments: tuple) -> None:
    if event == "pickle.find_class":
        _report(event, arguments)
    elif event in ("exec", "compile", "marshal.loads"):
        try:
            frame = sys._getframe(1)
        except ValueError:  # the interpreter itself: what follows -c
            return
        name = frame.f_code.co_filename
        if not any(name.endswith(end) for end in ALLOWED):
            _report(event, (name, frame.f_code.co_name, frame.f_lineno))


def _report(event: str, about: tuple) -> None:
    stack = "".join(traceback.format_stack(sys._getframe(2)))
    with open(REPORT, "a") as file:
        file.write(f"{event} {about!r} in {sys.argv}\n{stack}\n")
    if ABORT:
        os._exit(STATUS)


if REPORT:
    with open(REPORT, "a") as file:
        file.write(f"watching {os.getpid()}\n")
    sys.addaudithook(_watch)
