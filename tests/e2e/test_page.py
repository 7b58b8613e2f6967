"""The web page, the default model behind it, and a person in front of it."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from tests.browser import browser, context, faults, tab  # noqa: F401  (fixtures)

QUESTION = "What is the capital of France?"
LIMIT = 24


def ask(page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def api_answer(url: str) -> str:
    """What another client is told."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": LIMIT}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    return answer["choices"][0]["message"]["content"]


def test_a_conversation_with_the_default_model(tab, real):  # noqa: F811
    tab.goto(real.url)
    expect(tab.locator("#state")).to_have_attribute("data-state", "ready")
    tab.locator("#set-temperature").fill("0")
    tab.locator("#set-max_tokens").fill(str(LIMIT))
    tab.get_by_role("button", name=QUESTION).click()
    expect(tab.locator(".figures")).to_contain_text(re.compile(r"\d tokens · [\d.]+ tokens/s · first after"))
    expect(tab.locator(".answer")).to_have_text(api_answer(real.url))
    ask(tab, "And of Italy?")
    expect(tab.locator(".figures").nth(1)).to_contain_text("prompt tokens cached")
    expect(tab.locator(".answer").nth(1)).to_have_text(re.compile(r"\w+"))

    # Stopped, the answer stays as far as it got, and the engine has nothing left to do.
    tab.locator("#set-max_tokens").fill("")
    ask(tab, "Write a very long story about a lighthouse.")
    expect(tab.locator(".answer").nth(2)).to_have_text(re.compile(r".{80,}", re.DOTALL))
    expect(tab.locator("#stat-running")).to_have_text("1")
    expect(tab.locator("#stat-blocks")).to_have_text(re.compile(r"^[1-9]\d* / "))
    tab.keyboard.press("Escape")
    expect(tab.locator(".note").nth(2)).to_have_text("Stopped.")
    expect(tab.locator("#stat-running")).to_have_text("0")
    expect(tab.locator("#stat-speed")).to_have_text("0.0")


def test_probabilities_of_the_default_model(tab, real):  # noqa: F811
    tab.goto(real.url)
    tab.locator("#set-temperature").fill("0")
    tab.locator("#set-max_tokens").fill(str(LIMIT))
    tab.get_by_role("button", name="Probabilities").click()
    ask(tab, QUESTION)
    expect(tab.locator(".figures")).to_be_visible()
    tokens = tab.locator(".token")
    tokens.nth(2).hover()
    rows = tab.get_by_role("tooltip").locator(".row")
    expect(rows).to_have_count(8)
    expect(rows.first).to_have_class("row chosen")  # the temperature is 0
    shares = [float(row.locator(".value").inner_text().strip("<% ")) for row in rows.all()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100.5
    assert api_answer(real.url) in "".join(tokens.all_inner_texts()).replace("↵\n", "\n")
