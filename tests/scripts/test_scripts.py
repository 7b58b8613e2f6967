"""The scripts that `make` runs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_line_reference_is_current():
    cli_reference = script("cli_reference")
    assert cli_reference.PATH.read_text() == cli_reference.reference(), "run `make docs`"


def test_the_routes_reference_is_current():
    routes_reference = script("routes_reference")
    assert routes_reference.PATH.read_text() == routes_reference.reference(), "run `make docs`"


def test_the_sampling_reference_is_current():
    sampling_reference = script("sampling_reference")
    assert sampling_reference.PATH.read_text() == sampling_reference.reference(), "run `make docs`"


def test_the_limits_reference_is_current():
    limits_reference = script("limits_reference")
    assert limits_reference.PATH.read_text() == limits_reference.reference(), "run `make docs`"


def test_the_errors_reference_is_current():
    errors_reference = script("errors_reference")
    assert errors_reference.PATH.read_text() == errors_reference.reference(), "run `make docs`"


def test_the_models_reference_is_current():
    models_reference = script("models_reference")
    assert models_reference.PATH.read_text() == models_reference.reference(), "run `make docs`"


def test_coverage_floor():
    def file(percent):
        return {"summary": {"percent_covered": percent}}

    report = {"files": {"b.py": file(79.9), "a.py": file(12.0), "c.py": file(80.0)}}
    assert script("coverage_floor").below(report, 80.0) == [("a.py", 12.0), ("b.py", 79.9)]


def test_requirements():
    done = run(sys.executable, str(ROOT / "scripts" / "requirements.py"), "dev", "hub", "build-system")
    assert "ruff" in done.stdout
    assert "huggingface-hub" in done.stdout
    assert "scikit-build-core" in done.stdout


def test_a_silent_command_gets_a_sign_of_life_and_keeps_its_status():
    alive = str(ROOT / "scripts" / "alive.sh")
    done = subprocess.run(
        [alive, "sh", "-c", "echo out; sleep 1.5; exit 3"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ALIVE_SECONDS": "1"},
    )
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert done.stderr == "  still at it after 1 s\n"


def test_preflight_says_what_to_install(tmp_path):
    preflight = str(ROOT / "scripts" / "preflight.sh")
    assert run(preflight, sys.executable).returncode == 0
    missing = run(preflight, "no-such-python")
    assert missing.returncode == 1
    assert "apt install" in missing.stderr
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    assert "older than Python 3.11" in run(preflight, str(old)).stderr
