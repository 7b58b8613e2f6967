"""What the documentation points at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "bench").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_links_of_a_page_exist(page):
    text = page.read_text()
    paths = re.findall(r"`((?:tenon|tests|docs|bench|scripts)/[\w./-]*)`", text)
    missing = {path for path in paths if not (ROOT / path).exists()}
    for link in re.findall(r"\]\(([^)#]+)[)#]", text):
        if "://" not in link and not (page.parent / link).exists():
            missing.add(link)
    assert not missing


def test_make_targets_that_are_mentioned_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = {name for page in PAGES for name in re.findall(r"`make ([a-z]+)", page.read_text())}
    assert mentioned <= targets
