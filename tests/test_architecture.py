"""The rules that keep tenon readable, checked over the syntax trees of its files (nothing is imported).

The order of packages is the one of docs/tour.md: a package imports only to its left or within its own
column, and never in a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "tenon"

COLUMNS = (
    {"util", "errors", "env"},
    {"core"},
    {"ops", "dist", "text", "parse", "grammar", "config", "resolve", "pull", "hub", "formats"},
    {"kernels", "layers", "cache"},
    {"quant", "mm", "sample"},
    {"models", "spec"},
    {"engine"},
    {"llm", "server"},
    {"bench", "collect_env", "cli", "__main__"},
)
RANK = {package: rank for rank, packages in enumerate(COLUMNS) for package in packages}

# What a package must not import although it stands to its left: models are written against layers alone, and
# nothing but the op selection knows a backend.
FORBIDDEN = {"models": {"kernels", "quant"}, "engine": {"kernels", "quant"}, "server": {"kernels", "models"}}

# Files that hand control to code chosen by data; msgspec and json read everything that comes from outside.
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("os", "system")}

MAX_LINES = 700


@dataclass(frozen=True)
class Import:
    file: str  # relative to tenon/
    line: int
    module: str  # absolute, e.g. "tenon.core.batch"
    at_module_level: bool

    @property
    def package(self) -> str:
        """The package of tenon/ it names, "" for tenon itself and for anything else."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "tenon" and len(parts) > 1 else ""

    def __str__(self) -> str:
        return f"tenon/{self.file}:{self.line} imports {self.module}"


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def owner(file: str) -> str:
    """Package of a file: engine/step.py -> engine, env.py -> env."""
    return Path(file).parts[0].removesuffix(".py")


def imports_of(file: str, tree: ast.Module) -> Iterator[Import]:
    in_functions = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    } | {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = ("tenon", *Path(file).parts[:-1])
    for node in ast.walk(tree):
        outside = id(node) not in in_functions
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, outside)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            if module == "tenon":  # from tenon import env
                for alias in node.names:
                    yield Import(file, node.lineno, f"tenon.{alias.name}", outside)
            else:
                yield Import(file, node.lineno, module, outside)


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(), str(path)) for path in sources()}


@pytest.fixture(scope="module")
def imports(trees: dict[str, ast.Module]) -> list[Import]:
    return [found for file, tree in trees.items() for found in imports_of(file, tree)]


def test_every_package_has_its_place(trees):
    unknown = {owner(file) for file in trees} - set(RANK) - {"__init__"}
    assert not unknown, f"give {sorted(unknown)} a column in tests/test_architecture.py"


def test_packages_import_only_to_their_left(imports):
    wrong = [
        str(found)
        for found in imports
        if owner(found.file) != "__init__"  # tenon/__init__.py is the lazy front door
        and found.package in RANK
        and RANK[found.package] > RANK[owner(found.file)]
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_do_not_import_in_a_circle(imports):
    edges: dict[str, set[str]] = {}
    for found in imports:
        source = owner(found.file)
        if source != "__init__" and found.package in RANK and found.package != source:
            edges.setdefault(source, set()).add(found.package)

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = edges.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    circles = sorted(package for package in edges if package in reach(package))
    assert not circles, f"these packages import each other in a circle: {circles}"


def test_packages_keep_away_from_what_is_not_their_business(imports):
    wrong = [str(found) for found in imports if found.package in FORBIDDEN.get(owner(found.file), ())]
    assert not wrong, "\n".join(wrong)


def test_torch_is_imported_only_inside_functions_of_ops(imports):
    """docs/adr/0001: the CPU path runs without torch; the references of ops use it when they are called, and
    so does what transformers runs when it is asked for (docs/adr/0020)."""
    heavy = {"torch", "transformers"}
    wrong = [
        str(found)
        for found in imports
        if found.module.split(".")[0] in heavy
        and (found.at_module_level or (owner(found.file) != "ops" and found.file != "models/_fallback.py"))
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_that_comes_from_outside_is_executed(trees, imports):
    wrong = [str(found) for found in imports if found.module.split(".")[0] in UNSAFE_MODULES]
    for file, tree in trees.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            target = call.func
            if isinstance(target, ast.Name):
                unsafe = target.id in UNSAFE_CALLS
            else:
                unsafe = (
                    isinstance(target, ast.Attribute)
                    and isinstance(target.value, ast.Name)
                    and (target.value.id, target.attr) in UNSAFE_ATTRIBUTES
                )
            keywords = {keyword.arg for keyword in call.keywords if ast.unparse(keyword.value) == "True"}
            if unsafe or keywords & {"allow_pickle", "shell"}:
                wrong.append(f"tenon/{file}:{call.lineno} calls {ast.unparse(call)[:60]}")
    assert not wrong, "\n".join(wrong)


def test_environment_variables_are_read_in_one_file(trees):
    wrong = [
        f"tenon/{file}:{node.lineno} reads the environment; tenon/env.py is the place"
        for file, tree in trees.items()
        if file != "env.py"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"})
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {"environ", "getenv"} & names(node))
    ]
    assert not wrong, "\n".join(wrong)


def names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def test_files_are_short_enough_to_read():
    code = [path for path in ROOT.rglob("*") if path.suffix in {".py", ".cpp", ".h", ".hpp"}]
    long = {str(path): n for path in code if (n := len(path.read_text().splitlines())) > MAX_LINES}
    assert not long, f"over {MAX_LINES} lines; would a reader rather find two rooms here? {long}"


def test_the_rules_see_what_they_forbid():
    """The walk itself, on a file that breaks the rules."""
    tree = ast.parse(
        "import torch\nfrom ..core import batch\nfrom tenon import env\ndef f():\n    import torch.nn"
    )
    found = [(i.module, i.at_module_level) for i in imports_of("engine/x.py", tree)]
    assert found == [("torch", True), ("tenon.core", True), ("tenon.env", True), ("torch.nn", False)]
