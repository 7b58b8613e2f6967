"""The page without a mouse, read aloud, in both colour schemes, on a small screen, without the network."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.server.fake_engine import FakeEngine
from tests.server.ui.conftest import ask

TEXT = (
    "## Title\n\nSome `code`, a [link](https://x.org), **bold**.\n\n> quote\n\n- item\n\n"
    "```py\nx = 1\n```\n\n| a | b |\n|--|--|\n| 1 | 2 |"
)

# Every visible text with its colour, and the colours behind it from the outermost to the innermost.
TEXTS = """() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const paint = (colours) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const ground = (element) => getComputedStyle(element).backgroundColor;
    const found = [];
    while (walk.nextNode()) {
        const element = walk.currentNode.parentElement;
        const seen = element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
        if (!seen || !walk.currentNode.data.trim()) continue;
        if (element.closest(".offscreen, .skip, :disabled, option, noscript, script")) continue;
        const behind = [];
        for (let at = element; at; at = at.parentElement) behind.unshift(ground(at));
        const text = paint([...behind, getComputedStyle(element).color]);
        found.push([walk.currentNode.data.trim().slice(0, 30), text, paint(behind)]);
    }
    for (const element of document.querySelectorAll("[placeholder]")) {
        if (!element.checkVisibility()) continue;
        const text = paint([getComputedStyle(element, "::placeholder").color]);
        found.push([element.placeholder, text, paint([ground(document.body), ground(element)])]);
    }
    return found;
}"""


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(colour: list[int]) -> float:
        linear = [c / 12.92 if (c := v / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for v in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("by", ["system", "switch"])
def test_contrast(tab, site, faults, scheme, by):
    """Level AA for all text, tokens of any probability included."""
    if by == "system":
        tab.emulate_media(color_scheme=scheme)
    else:
        tab.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        tab.add_init_script(f"localStorage.setItem('tenon.theme', '{scheme}')")
    tab.goto(site(FakeEngine(lambda prompt, choice: TEXT)))
    expect(tab.locator("#stat-running")).to_have_text("0")
    texts = tab.evaluate(TEXTS)
    ask(tab, "Hi")
    tab.locator("#set-top_p").fill("7")
    ask(tab, "Hi again")
    expect(tab.get_by_role("alert")).to_be_visible()
    faults.clear()
    texts += tab.evaluate(TEXTS)
    tab.locator("#set-top_p").fill("")
    tab.get_by_role("button", name="Probabilities").click()
    ask(tab, "And again")
    tab.locator(".token").first.hover()
    texts += tab.evaluate(TEXTS)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(251, 250, 247)") == (scheme == "light")
    assert len(texts) > 100
    weak = [(text, round(ratio, 2)) for text, one, other in texts if (ratio := contrast(one, other)) < 4.5]
    assert not weak


def test_theme_switch(tab, site):
    tab.emulate_media(color_scheme="light")
    tab.goto(site(FakeEngine()))
    colour = lambda: tab.evaluate("getComputedStyle(document.body).colorScheme")  # noqa: E731
    button = tab.locator("#theme")
    expect(button).to_have_accessible_name("Colours: as the system")
    assert tab.evaluate("document.documentElement.dataset.theme") == "system"
    button.click()
    expect(button).to_have_accessible_name("Colours: light")
    button.click()
    expect(button).to_have_accessible_name("Colours: dark")
    assert colour() == "dark"
    tab.reload()
    assert colour() == "dark"
    tab.locator("#theme").click()
    assert colour() == "light dark"


def test_keyboard_only(tab, site):
    """From an empty page through a conversation without a mouse; whatever has the focus shows it."""
    tab.goto(site(FakeEngine(lambda prompt, choice: "Fine.")))
    message = tab.get_by_role("textbox", name="Message")
    expect(message).to_be_focused()
    tab.keyboard.type("Two")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.type("lines")
    expect(message).to_have_value("Two\nlines")
    tab.keyboard.press("Enter")
    expect(tab.locator(".bubble")).to_have_text("Two\nlines")
    expect(tab.locator(".answer")).to_have_text("Fine.")
    expect(tab.locator("body:not(.answering)")).to_be_attached()
    expect(message).to_be_focused()
    names = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        name, visible = tab.evaluate(
            """() => {
                const element = document.activeElement;
                const style = getComputedStyle(element.closest(".box") ?? element);
                const label = element.ariaLabel || element.labels?.[0]?.innerText;
                const name = label || element.innerText || element.id;
                return [name.trim(), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1];
            }"""
        )
        names.append(name)
        assert visible or tab.evaluate("document.activeElement === document.body"), name
    controls = {"New chat", "Probabilities", "Engine and settings", "Edit and send again", "Regenerate"}
    controls |= {"Copy the answer", "Message", "Send", "Engine", "System prompt", "Temperature", "Reset all"}
    assert controls <= set(names)


def test_skip_link_and_landmarks(tab, site):
    tab.goto(site(FakeEngine()))
    skip = tab.get_by_role("link", name="Skip to the message box")
    expect(skip).not_to_be_in_viewport()
    skip.focus()
    expect(skip).to_be_in_viewport()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("textbox", name="Message")).to_be_focused()
    for role in ("banner", "main", "navigation", "complementary"):
        expect(tab.get_by_role(role)).to_have_count(1)
    unnamed = tab.evaluate(
        """() => {
            const named = (e) => e.ariaLabel || e.labels?.length || e.textContent.trim();
            const all = [...document.querySelectorAll("button, input, select, textarea")];
            return all.filter((element) => !named(element)).map((element) => element.outerHTML);
        }"""
    )
    assert not unnamed


def test_what_is_read_aloud(tab, site):
    """Whole sentences at a polite pace; never single tokens, and nothing twice."""
    sentences = [f"This is sentence number {i}." for i in range(40)]
    tab.goto(site(FakeEngine(lambda prompt, choice: " ".join(sentences), delay=0.004)))
    tab.evaluate(
        """() => {
            window.said = [];
            new MutationObserver((records) => records.forEach((record) =>
                record.addedNodes.forEach((node) => window.said.push(node.textContent))
            )).observe(document.getElementById("announcer"), { childList: true });
        }"""
    )
    ask(tab, "Go")
    first, *middle, last = tab.evaluate("window.said")
    assert (first, last) == ("Answering.", "End of the answer.")
    assert " ".join(middle) == " ".join(sentences)
    assert 2 <= len(middle) <= 12
    assert tab.locator("#messages").get_attribute("aria-live") == "off"


@pytest.mark.parametrize("width", [360, 768])
def test_small_screens(tab, site, width):
    tab.set_viewport_size({"width": width, "height": 640})
    text = TEXT + "\n\n" + "wide " * 5 + "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```"
    tab.goto(site(FakeEngine(lambda prompt, choice: text)))
    ask(tab, "z" * 300)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("document.getElementById('conversation').scrollWidth") <= width
    boxes = [button.bounding_box() for button in tab.get_by_role("navigation").get_by_role("button").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    panel = tab.get_by_role("complementary")
    expect(panel).to_be_hidden()
    tab.get_by_role("button", name="Engine and settings").click()
    expect(panel).to_be_in_viewport()
    expect(panel.get_by_role("heading", name="Engine and settings")).to_be_focused()
    tab.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(tab.get_by_role("button", name="Engine and settings")).to_be_focused()


def test_less_motion(tab, site):
    tab.emulate_media(reduced_motion="reduce")
    tab.goto(site(FakeEngine(lambda prompt, choice: "word " * 500, delay=0.001)))
    ask(tab, "Go", wait=False)
    expect(tab.locator(".answer")).to_contain_text("word")
    assert tab.evaluate("document.getAnimations().length") == 0
    tab.keyboard.press("Escape")


def test_the_end_stays_in_view_unless_one_reads_above(tab, site):
    tab.goto(site(FakeEngine(lambda prompt, choice: "A line of words.\n\n" * 150, delay=0.001)))
    ask(tab, "Go", wait=False)
    left = """() => {
        const { scrollHeight, scrollTop, clientHeight } = document.getElementById("conversation");
        return scrollHeight - scrollTop - clientHeight;
    }"""
    tab.locator(".answer p").nth(40).wait_for()
    assert tab.evaluate(left) < 60
    tab.locator("#conversation").hover()
    tab.mouse.wheel(0, -400)
    tab.wait_for_timeout(300)
    expect(tab.locator("body:not(.answering)")).to_be_attached()
    assert tab.evaluate(left) > 300


def test_copying(tab, site, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(site(FakeEngine(lambda prompt, choice: TEXT)))
    ask(tab, "Go")
    tab.get_by_role("button", name="Copy", exact=True).click()
    expect(tab.locator(".copy-code.copied")).to_be_visible()
    assert tab.evaluate("navigator.clipboard.readText()") == "x = 1"
    tab.get_by_role("button", name="Copy the answer").click()
    expect(tab.locator(".actions .copied")).to_be_visible()
    assert tab.evaluate("navigator.clipboard.readText()") == TEXT


def test_the_network_is_not_needed(tab: Page, site):
    """Everything the page loads comes from its own server (`tab` checks each request); nothing is missing."""
    answers = []
    tab.on("response", lambda response: answers.append((response.url, response.status)))
    url = site(FakeEngine())
    tab.goto(url)
    ask(tab, "Hi")
    assert len(answers) > 15
    assert all(address.startswith(url) and status == 200 for address, status in answers)
