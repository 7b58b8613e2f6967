"""What no line of tenon may do, however good the reason seems where it stands (see docs/access.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "tenon"

# Modules that turn bytes into objects of any class or into code, or that do so between processes.
PICKLES = {
    "pickle", "cPickle", "_pickle", "pickletools", "marshal", "shelve", "dill", "cloudpickle", "joblib",
    "copyreg", "multiprocessing", "xmlrpc", "code", "codeop",
}  # fmt: skip
# Attributes that do, of whatever object.
CALLS = {
    "recv_pyobj", "send_pyobj", "load_module", "exec_module", "spec_from_file_location", "popen", "mktemp",
    "run_path", "ProcessPoolExecutor", "trust_remote_code", "find_class", "from_pickle",
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {("torch", "load"), ("yaml", "load"), ("os", "system"), ("np", "load"), ("numpy", "load")}
KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}

# Who may talk to the network. Everything else that wants something from outside asks one of these.
CLIENTS = {"requests", "urllib.request", "urllib3", "http.client", "httpx", "aiohttp", "ftplib", "smtplib",
           "huggingface_hub", "websockets", "socketserver", "http.server"}  # fmt: skip
FETCHERS = {"hub.py": {"huggingface_hub"}}
SOCKETS = {  # file: why it opens a connection or listens
    "util/http.py": "the client of `tenon chat --url` and the load generator",
    "server/run.py": "listens",
    "server/admin_socket.py": "the operator's Unix socket",
    "engine/process.py": "one end of a socket pair",
    "bench/startup.py": "looks for a free port",
}

# Where what comes from outside is checked. Python run with -O skips assertions, so there must be none.
VALIDATION = (
    "formats", "server/schema", "server/auth.py", "server/keys.py", "server/origin.py", "server/tls.py",
    "server/body.py", "server/limits.py", "server/endpoint.py", "hub.py", "pull.py", "resolve.py",
    "config.py", "core/sampling.py", "core/structured.py", "text/from_gguf.py", "text/from_hf.py",
    "grammar/schema.py", "models/_fields.py", "models/_load.py", "util/http.py",
)  # fmt: skip


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), str(path))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def unsafe(node: ast.AST) -> bool:
    if any(name.split(".")[0] in PICKLES or name.split(".")[-1] in CALLS for name in imported(node)):
        return True
    if isinstance(node, ast.Attribute):
        of = node.value.id if isinstance(node.value, ast.Name) else ""
        return node.attr in CALLS or (of, node.attr) in METHODS
    if isinstance(node, ast.Call):
        if any(word.arg in KEYWORDS and ast.unparse(word.value) != "False" for word in node.keywords):
            return True
        return isinstance(node.func, ast.Name) and node.func.id in BUILTINS
    return False


def fetches(file: str, node: ast.AST) -> bool:
    names = {client for name in imported(node) for client in CLIENTS if f"{name}.".startswith(f"{client}.")}
    if names - FETCHERS.get(file, set()):
        return True
    opens = {"create_connection", "open_connection", "open_unix_connection", "start_server"}
    is_open = isinstance(node, ast.Attribute) and node.attr in opens
    is_socket = (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func) in ("socket.socket", "socket.create_server")
        and not any(word.arg == "fileno" for word in node.keywords)  # one that was inherited
    )
    return (is_open or is_socket) and file not in SOCKETS


def narrows(test: ast.expr) -> bool:
    """`x is not None`, which tells the type checker what the code before has made sure of."""
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)


def test_no_data_becomes_code():
    """No exceptions: there is no allow-list."""
    wrong = [
        f"tenon/{file}:{getattr(node, 'lineno', '?')} {ast.unparse(node)[:80]}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if unsafe(node)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_network_is_reached_from_few_places():
    wrong = [
        f"tenon/{file}:{getattr(node, 'lineno', '?')} {ast.unparse(node)[:80]}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if fetches(file, node)
    ]
    assert not wrong, "use one of the fetchers:\n" + "\n".join(wrong)
    assert all((ROOT / file).exists() for file in (*SOCKETS, *FETCHERS))


def test_nothing_is_validated_by_assertions():
    found = [path for path in VALIDATION if not (ROOT / path).exists()]
    assert not found, f"gone or renamed: {found}"
    wrong = [
        f"tenon/{file}:{node.lineno} {ast.unparse(node)[:80]}"
        for file, tree in trees()
        if any(file == path or file.startswith(f"{path}/") for path in VALIDATION)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and not narrows(node.test)
    ]
    assert not wrong, "raise a typed error instead:\n" + "\n".join(wrong)


def test_python_is_started_without_the_current_directory():
    """`python -m` looks for modules where the user happens to be: tenon.util.python, or -P."""
    wrong = [
        f"tenon/{file}:{node.lineno} {ast.unparse(node)[:80]}"
        for file, tree in trees()
        if not file.startswith("bench/")
        for node in ast.walk(tree)
        if isinstance(node, ast.List)
        and node.elts
        and ast.unparse(node.elts[0]) == "sys.executable"
        and not any(isinstance(word, ast.Constant) and word.value == "-P" for word in node.elts)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import dill as d", "from multiprocessing import Pool",
        "eval(x)", "exec(x)", "x.recv_pyobj()", "torch.load(f)", "np.load(f)", "open(f, allow_pickle=True)",
        "subprocess.run(x, shell=True)", "f(trust_remote_code=flag)", "import marshal",
        "from importlib.util import spec_from_file_location", "os.system(x)", "os.popen(x)",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
)  # fmt: skip
def test_the_lint_sees_code(line):
    assert any(unsafe(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "import requests", "import urllib.request", "from urllib import request", "from http.client import x",
        "import httpx", "socket.socket(a, b)", "asyncio.open_connection(a)", "import huggingface_hub",
    ],
)  # fmt: skip
def test_the_lint_sees_fetches(line):
    assert any(fetches("server/chat.py", node) for node in ast.walk(ast.parse(line)))


def test_the_lint_lets_pass_what_is_meant_to():
    for line in ("from urllib.parse import urlsplit", "import json", "x.load()", "f(shell=False)"):
        nodes = list(ast.walk(ast.parse(line)))
        assert not any(unsafe(node) or fetches("server/chat.py", node) for node in nodes), line
