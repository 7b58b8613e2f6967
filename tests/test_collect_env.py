import json
import subprocess
import sys

from tenon import collect_env


def test_every_section_has_facts():
    facts = collect_env.collect()
    assert set(facts) == {"tenon", "machine", "packages", "environment"}
    assert all(isinstance(value, str) and value for section in facts.values() for value in section.values())
    assert facts["packages"]["numpy"][0].isdigit()


def test_secrets_are_not_shown(monkeypatch):
    monkeypatch.setenv("TENON_API_KEY", "very-secret")
    monkeypatch.setenv("TENON_NUM_THREADS", "2")
    assert "very-secret" not in json.dumps(collect_env.collect())
    assert collect_env.collect()["environment"]["TENON_NUM_THREADS"] == "2"


def test_outside_a_checkout_the_version_stands_for_the_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(collect_env, "__file__", str(tmp_path / "tenon" / "collect_env.py"))
    assert collect_env.commit() == (collect_env.version("tenon") or "unknown")


def test_what_cannot_be_read_is_unknown(monkeypatch):
    assert collect_env.version("no-such-package") is None

    def fail(*args, **kwargs):
        raise OSError

    monkeypatch.setattr(subprocess, "run", fail)
    assert collect_env.commit() in {"unknown", collect_env.version("tenon")}


def test_importing_it_is_cheap():
    code = "import sys, tenon.collect_env; print([m for m in ('numpy', 'torch', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
