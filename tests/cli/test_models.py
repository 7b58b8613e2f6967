"""What is shown while a model is pulled: to a person at a terminal, and to a log."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tenon import cli
from tenon.cli import models
from tenon.core.files import ModelFiles
from tenon.errors import ModelNotFound

FILES = ModelFiles("gguf", (Path("/x/m.gguf"),), "m", Path("/x"))


@pytest.fixture(params=[True, False], ids=["terminal", "log"])
def screen(request, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=request.param, width=80)
    monkeypatch.setattr(models, "console", lambda: screen)
    return screen


def pulling(error=None):
    def resolve(name, revision=None, *, download=False, progress=None):
        assert download
        for stage in ("download", "extract"):
            for done in (0, 50, 100):
                progress(stage, done, 100)
        if error:
            raise error
        return FILES

    return resolve


def test_pull_shows_its_stages(screen, monkeypatch, capsys):
    monkeypatch.setattr(models, "resolve", pulling())
    assert cli.run(["pull", "m"]) == 0
    assert capsys.readouterr().out == "m is at /x/m.gguf\n"
    shown = screen.file.getvalue()
    assert "downloading m" in shown
    assert "unpacking and checking m" in shown
    assert ("━" in shown) == screen.is_terminal


def test_a_pull_that_fails_cleans_up(screen, monkeypatch, capsys):
    monkeypatch.setattr(models, "resolve", pulling(ModelNotFound("no network")))
    assert cli.run(["pull"]) == 2
    assert capsys.readouterr().err == "error: no network\n"


def test_a_model_that_is_here_shows_nothing(screen, monkeypatch):
    monkeypatch.setattr(models, "resolve", lambda *args, **kwargs: FILES)
    assert models.ensure_here("m") is FILES
    assert screen.file.getvalue() == ""
