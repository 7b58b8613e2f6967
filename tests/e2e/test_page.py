"""The web page, the default model behind it, and a person in front of it."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser import browser, context, faults, tab  # noqa: F401  (fixtures)

QUESTION = "What is the capital of France?"


def ask(page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def test_a_conversation_with_the_default_model(tab, real):  # noqa: F811
    tab.goto(real.url)
    expect(tab.locator("#state")).to_have_attribute("data-state", "ready")
    tab.locator("#set-temperature").fill("0")
    tab.get_by_role("button", name=QUESTION).click()
    expect(tab.locator(".answer")).to_have_text("The capital of France is Paris.")
    expect(tab.locator(".figures")).to_contain_text(re.compile(r"\d tokens · [\d.]+ tokens/s · first after"))
    ask(tab, "And of Italy?")
    expect(tab.locator(".answer").last).to_contain_text("Rome")
    expect(tab.locator(".figures").last).to_contain_text("prompt tokens cached")

    # Stopped, the answer stays as far as it got, and the engine has nothing left to do.
    ask(tab, "Write a very long story about a lighthouse.")
    expect(tab.locator(".answer").last).to_have_text(re.compile(r".{80,}", re.DOTALL))
    expect(tab.locator("#stat-running")).to_have_text("1")
    expect(tab.locator("#stat-blocks")).to_have_text(re.compile(r"^[1-9]\d* / "))
    tab.keyboard.press("Escape")
    expect(tab.locator(".note").last).to_have_text("Stopped.")
    expect(tab.locator("#stat-running")).to_have_text("0")
    expect(tab.locator("#stat-speed")).to_have_text("0.0")


def test_probabilities_of_the_default_model(tab, real):  # noqa: F811
    tab.goto(real.url)
    tab.locator("#set-temperature").fill("0")
    tab.get_by_role("button", name="Probabilities").click()
    ask(tab, QUESTION)
    tokens = tab.locator(".token")
    expect(tokens.filter(has_text="Paris")).to_have_count(1)
    tokens.filter(has_text="Paris").hover()
    rows = tab.get_by_role("tooltip").locator(".row")
    expect(rows).to_have_count(8)
    expect(rows.first).to_have_class("row chosen")
    shares = [float(row.locator(".value").inner_text().strip("<% ")) for row in rows.all()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100.5
    text = "".join(tokens.all_inner_texts())
    assert "The capital of France is Paris." in text
