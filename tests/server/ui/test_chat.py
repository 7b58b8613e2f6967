"""A conversation on the page: sending, streaming, stopping, editing, reasoning, tools, errors."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tenon.core.messages import EngineStats
from tenon.server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.ui.conftest import ask

MARKDOWN = "## Steps\n\n1. **First** thing\n2. `second` thing\n\n```python\nprint('hi')\n```\n\nDone."
XSS = '<img src=x onerror="window.hit=1"> <script>window.hit=1</script> [x](javascript:window.hit=1)'
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
TOOLS = '[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]'
THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if tools %}<tool_call></tool_call> arguments{% endif %}<think></think>"
)


def engine(
    text: str | list[str] = "Hello there.", delay: float = 0.0, template: str | None = None
) -> FakeEngine:
    """Says one text after the other."""
    texts = [text] if isinstance(text, str) else list(text)
    made = FakeEngine(lambda prompt, choice: texts[0] if len(texts) == 1 else texts.pop(0), delay)
    if template:
        made.tokenizer.chat_template = template
        made.tokenizer.chat_templates = {"default": template}
    return made


def answers(page: Page):
    return page.locator(".assistant .answer")


def prompts(served: FakeEngine) -> list[str]:
    """What the engine was asked, through the template."""
    return [bytes(request.prompt).decode() for request in served.requests]


def test_question_and_answer(tab, site):
    served = engine(MARKDOWN)
    tab.goto(site(served))
    expect(tab.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
    expect(tab.get_by_role("combobox", name="Model")).to_have_value("fake")
    ask(tab, "How?")
    expect(tab.locator(".bubble")).to_have_text("How?")
    answer = answers(tab)
    expect(answer.get_by_role("heading")).to_have_text("Steps")
    expect(answer.locator("ol > li strong")).to_have_text("First")
    expect(answer.locator("pre code")).to_have_text("print('hi')")
    expect(tab.locator(".figures")).to_contain_text(f"{len(MARKDOWN) + 1} tokens")
    expect(tab.get_by_role("heading", name="What shall we talk about?")).to_be_hidden()
    ask(tab, "And then?")
    assert prompts(served)[-1] == f"<user>How?\n<assistant>{MARKDOWN}\n<user>And then?\n<assistant>"


def test_it_streams(tab, site):
    """Text stands on the page long before the answer is over, and grows."""
    tab.goto(site(engine("word " * 400, delay=0.002)))
    ask(tab, "Go", wait=False)
    expect(answers(tab)).to_contain_text("word word")
    assert tab.evaluate("document.body.classList.contains('answering')")
    expect(tab.locator(".assistant")).to_have_attribute("aria-busy", "true")
    first = len(answers(tab).inner_text())
    expect(answers(tab)).to_have_text(re.compile(rf"^.{{{first + 50},}}$"))
    assert tab.evaluate("document.body.classList.contains('answering')")
    expect(tab.locator("body:not(.answering)")).to_be_attached()
    expect(answers(tab)).to_have_text(("word " * 400).strip())
    expect(tab.locator(".assistant")).not_to_have_attribute("aria-busy", "true")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop(tab, site, how):
    served = engine("word " * 5000, delay=0.002)
    tab.goto(site(served))
    ask(tab, "Go", wait=False)
    expect(answers(tab)).to_contain_text("word word")
    expect(tab.get_by_role("button", name="Send", exact=True)).to_be_hidden()
    if how == "button":
        tab.get_by_role("button", name="Stop").click()
    else:
        tab.keyboard.press("Escape")
    expect(tab.locator(".note")).to_have_text("Stopped.")
    expect(tab.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(tab.get_by_role("textbox", name="Message")).to_be_focused()
    tab.wait_for_timeout(100)
    assert served.aborted  # the engine works for nobody
    expect(answers(tab)).to_contain_text("word word")


def test_regenerate(tab, site):
    served = engine(["First answer.", "Second answer.", "Third answer."])
    tab.goto(site(served))
    ask(tab, "Go")
    expect(answers(tab)).to_have_text("First answer.")
    tab.get_by_role("button", name="Regenerate").click()
    expect(answers(tab)).to_have_text("Second answer.")
    assert prompts(served)[0] == prompts(served)[1]
    ask(tab, "More")
    tab.get_by_role("button", name="Regenerate").first.click()  # cuts what followed
    expect(answers(tab)).to_have_count(1)


def test_regenerate_while_it_answers(tab, site):
    served = engine(["word " * 3000, "Short."], delay=0.001)
    tab.goto(site(served))
    ask(tab, "Go", wait=False)
    expect(answers(tab)).to_contain_text("word word")
    tab.get_by_role("button", name="Edit and send again").click()
    tab.get_by_role("textbox", name="Edit your message").fill("Better question")
    tab.keyboard.press("Enter")
    expect(answers(tab)).to_have_text("Short.")
    expect(tab.locator(".bubble")).to_have_text("Better question")
    expect(tab.locator("body:not(.answering)")).to_be_attached()
    assert prompts(served)[-1] == "<user>Better question\n<assistant>"
    assert len(served.aborted) == 1


def test_edit_can_be_left(tab, site):
    tab.goto(site(engine()))
    ask(tab, "As it was")
    tab.get_by_role("button", name="Edit and send again").click()
    tab.get_by_role("textbox", name="Edit your message").fill("changed")
    tab.keyboard.press("Escape")
    expect(tab.locator(".bubble")).to_have_text("As it was")
    expect(tab.get_by_role("button", name="Edit and send again")).to_be_focused()


def test_what_is_kept(tab, site):
    url = site(engine("**Kept** answer."))
    tab.goto(url)
    ask(tab, "Keep this")
    tab.locator("#set-top_k").fill("7")
    tab.reload()
    expect(tab.locator(".bubble")).to_have_text("Keep this")
    expect(answers(tab).locator("strong")).to_have_text("Kept")
    expect(tab.locator("#set-top_k")).to_have_value("7")
    tab.get_by_role("button", name="New chat").click()
    expect(tab.locator(".message")).to_have_count(0)
    expect(tab.get_by_role("textbox", name="Message")).to_be_focused()
    tab.reload()
    expect(tab.locator(".message")).to_have_count(0)


def test_a_spoiled_store_does_no_harm(tab, site):
    tab.goto(site(engine()))
    tab.evaluate("localStorage.setItem('tenon.chat', '{oops'); localStorage.setItem('tenon.settings', '[')")
    tab.reload()
    ask(tab, "Still there?")
    expect(answers(tab)).to_have_text("Hello there.")


def test_hostile_answer(tab, site):
    tab.goto(site(engine(XSS)))
    ask(tab, XSS)
    expect(answers(tab)).to_have_text(XSS)
    expect(tab.locator(".bubble")).to_have_text(XSS)
    tab.reload()
    expect(answers(tab)).to_have_text(XSS)
    assert tab.evaluate("window.hit") is None
    assert tab.locator("#messages :is(img, script, a)").count() == 0


def test_the_policy_holds(tab, site, faults):
    """Were there a hole, the browser would still refuse: markup from text, inline scripts, other servers."""
    tab.goto(site(engine()))
    outcome = tab.evaluate(
        """async () => {
            const tried = {};
            const attempt = async (name, action) => {
                tried[name] = "done";
                try { await action(); } catch { tried[name] = "refused"; }
            };
            await attempt("markup", () => { document.body.innerHTML = "<p>x</p>"; });
            await attempt("fetch", () => fetch("http://127.0.0.1:9/"));
            await attempt("inline", () => {
                const script = document.createElement("script");
                script.text = "window.hit = 1";
                document.body.append(script);
            });
            return [tried, window.hit ?? null];
        }"""
    )
    assert outcome == [{"markup": "refused", "fetch": "refused", "inline": "refused"}, None]
    assert faults
    faults.clear()


def test_reasoning_is_folded(tab, site):
    tab.goto(
        site(
            engine("<think>\nLet me *think*.\n</think>\nThe answer.", template=THINKING),
            ServerSettings(output_format="qwen3"),
        )
    )
    ask(tab, "Why?")
    expect(answers(tab)).to_have_text("The answer.")
    thoughts = tab.locator(".reasoning .prose")
    expect(thoughts).to_be_hidden()
    summary = tab.locator(".reasoning summary")
    expect(summary).to_have_text("Reasoning")
    summary.focus()
    tab.keyboard.press("Enter")
    expect(thoughts).to_be_visible()
    expect(thoughts.locator("em")).to_have_text("think")


def test_tool_call(tab, site):
    served = engine([f"I will look.\n{CALL}", "Sunny."], template=THINKING)
    tab.goto(site(served, ServerSettings(output_format="hermes")))
    tab.get_by_text("Tools", exact=True).click()
    tab.get_by_role("textbox", name="List of tools, as JSON").fill(TOOLS)
    ask(tab, "Weather?")
    expect(answers(tab)).to_have_text("I will look.")
    card = tab.get_by_role("region", name="Tool call")
    expect(card.locator(".tool-name")).to_have_text("get_weather")
    expect(card.locator("pre")).to_have_text(json.dumps({"city": "Paris", "days": 2}, indent=2))
    card.get_by_role("textbox").fill("25 degrees")
    card.get_by_role("button", name="Send result").click()
    expect(answers(tab).last).to_have_text("Sunny.")
    assert "<tool>25 degrees" in prompts(served)[-1]


def test_tools_that_are_no_list(tab, site):
    served = engine()
    tab.goto(site(served))
    tab.get_by_text("Tools", exact=True).click()
    box = tab.get_by_role("textbox", name="List of tools, as JSON")
    box.fill("{")
    expect(box).to_have_attribute("aria-invalid", "true")
    expect(tab.get_by_text("This is not a JSON list")).to_be_visible()
    ask(tab, "Hi")
    expect(answers(tab)).to_have_text("Hello there.")


def test_sampling_controls(tab, site):
    served = engine()
    tab.goto(site(served))
    tab.get_by_role("textbox", name="System prompt").fill("Be brief.")
    values = {"temperature": 0.3, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 3, "seed": 5}
    values |= {"presence_penalty": 0.1, "frequency_penalty": -0.2, "repetition_penalty": 1.1}
    for name, value in values.items():
        tab.locator(f"#set-{name}").fill(str(value))
    ask(tab, "Hi")
    params = served.requests[-1].params
    assert {name: getattr(params, name) for name in values} == values
    assert prompts(served)[-1] == "<system>Be brief.\n<user>Hi\n<assistant>"
    expect(tab.locator(".note")).to_have_text("Ended at the token limit.")
    tab.locator("#set-top_p").press("ArrowUp")
    expect(tab.locator("#set-top_p")).to_have_value("0.95")
    tab.get_by_role("button", name="Reset all").click()
    expect(tab.locator("#set-top_p")).to_have_value("")
    expect(tab.get_by_role("textbox", name="System prompt")).to_have_value("")


def test_other_model(tab, site):
    tab.goto(site(engine()))
    tab.get_by_role("combobox", name="Model").select_option("org/alias")
    with tab.expect_request("**/v1/chat/completions") as sent:
        ask(tab, "Hi")
    assert sent.value.post_data_json["model"] == "org/alias"
    tab.reload()
    expect(tab.get_by_role("combobox", name="Model")).to_have_value("org/alias")


def test_refusal_and_retry(tab, site, faults):
    served = engine()
    tab.goto(site(served))
    tab.locator("#set-top_p").fill("7")
    ask(tab, "Hi")
    alert = tab.get_by_role("alert")
    expect(alert).to_contain_text(re.compile("top_p"))
    tab.locator("#set-top_p").fill("")
    alert.get_by_role("button", name="Try again").click()
    expect(answers(tab)).to_have_text("Hello there.")
    expect(alert).to_have_count(0)
    assert all("400" in fault for fault in faults)
    faults.clear()


def test_an_answer_that_breaks_off(tab, site):
    served = engine("word " * 100)
    served.fail_after = 50
    tab.goto(site(served))
    ask(tab, "Hi")
    expect(tab.get_by_role("alert")).to_contain_text("internal error")
    expect(answers(tab)).to_contain_text("word word")
    served.fail_after = None
    tab.get_by_role("button", name="Try again").click()
    expect(answers(tab)).to_have_text(("word " * 100).strip())


def test_api_key(tab, site, faults):
    url = site(engine(), ServerSettings.with_keys(["secret"]))
    tab.goto(url)
    dialog = tab.get_by_role("dialog", name="This server asks for an API key")
    expect(dialog).to_be_visible()
    field = dialog.get_by_label("API key", exact=True)
    field.fill("wrong")
    tab.keyboard.press("Enter")
    expect(dialog.get_by_text("The server does not accept that key.")).to_be_visible()
    field.fill("secret")
    tab.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    ask(tab, "Hi")
    expect(answers(tab)).to_have_text("Hello there.")
    assert tab.evaluate("JSON.stringify(localStorage)").find("secret") == -1
    assert all("401" in fault for fault in faults)
    faults.clear()


def test_a_server_that_still_loads(tab, site, faults):
    served = engine()
    served.ready = False
    tab.goto(site(served))
    expect(tab.locator("#state")).to_have_attribute("data-state", "loading")
    served.ready = True
    expect(tab.locator("#state")).to_have_attribute("data-state", "ready")
    assert all("503" in fault for fault in faults)
    faults.clear()


def test_probabilities(tab, site):
    tab.goto(site(engine("héy\n🙂 x")))
    tab.get_by_role("button", name="Probabilities").click()
    ask(tab, "Hi")
    tokens = tab.get_by_role("listbox").get_by_role("option")
    expect(tokens).to_have_count(len("héy\n🙂 x".encode()) + 1)
    expect(answers(tab)).to_be_hidden()
    expect(tokens.nth(0)).to_have_text("h")
    expect(tokens.nth(1)).to_have_text("<C3>")  # half a character
    tip = tab.get_by_role("tooltip")
    expect(tip).to_be_hidden()
    tokens.nth(0).hover()
    rows = tip.locator(".row")
    expect(rows.nth(0)).to_contain_text(re.compile("a.*36.8 %"))
    expect(rows.nth(1)).to_contain_text(re.compile("b.*13.5 %"))
    expect(tip.locator(".chosen")).to_contain_text(re.compile("h.*4.98 %"))
    tab.mouse.move(5, 5)
    expect(tip).to_be_hidden()
    tokens.nth(0).focus()
    tab.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(tip.locator(".chosen")).to_contain_text("<C3>")
    tab.keyboard.press("End")
    expect(tokens.last).to_be_focused()
    tab.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    tab.get_by_role("button", name="Probabilities").click()
    expect(answers(tab)).to_be_visible()
    expect(tokens.first).to_be_hidden()


def test_live_view(tab, site):
    served = engine()
    served.stats = EngineStats(kv_blocks_total=1000, kv_blocks_used=250, num_requests_running=3,
        num_requests_waiting=2, prefix_cache_queries=80, prefix_cache_hits=20)  # fmt: skip
    tab.goto(site(served))
    expect(tab.locator("#stat-running")).to_have_text("3")
    expect(tab.locator("#stat-waiting")).to_have_text("2")
    expect(tab.locator("#stat-blocks")).to_have_text("250 / 1,000")
    expect(tab.locator("#stat-hits")).to_have_text("25 %")
    served.stats = EngineStats(kv_blocks_total=1000, kv_blocks_used=10)
    expect(tab.locator("#stat-running")).to_have_text("0")
    expect(tab.locator("#stat-blocks")).to_have_text("10 / 1,000")
    ask(tab, "Hi")
    expect(tab.locator("#spark-top")).to_contain_text("peak")


def test_nobody_looks_nobody_asks(tab, site):
    """The engine's figures are asked for only while they can be seen."""
    asked = []
    tab.on("request", lambda request: asked.append(request.url) if request.url.endswith("/metrics") else None)
    tab.goto(site(engine()))
    expect(tab.locator("#stat-running")).to_have_text("0")
    tab.get_by_role("button", name="Close the panel").click()
    tab.wait_for_timeout(300)
    asked.clear()
    tab.wait_for_timeout(2500)
    assert not asked
    tab.get_by_role("button", name="Engine and settings").click()
    tab.wait_for_timeout(300)
    assert asked
