"""The page's Markdown, in the browser that it is for."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Page

from tests.conftest import new_seed
from tests.server.fake_engine import FakeEngine

WHOLE = """async (text) => {
    const { markdown } = await import("/ui/markdown/stream.js");
    const target = document.createElement("div");
    markdown(target, text);
    return target.innerHTML;
}"""
# Every prefix, as it is shown while the answer is being written, then the end.
GROWING = """async (text) => {
    const { MarkdownStream } = await import("/ui/markdown/stream.js");
    const target = document.createElement("div");
    const stream = new MarkdownStream(target);
    const shown = [];
    for (const character of text) {
        stream.push(character);
        shown.push(target.innerHTML);
    }
    stream.finish();
    return [shown, target.innerHTML];
}"""


@pytest.fixture
def page(tab: Page, site) -> Page:
    tab.goto(site(FakeEngine()))
    return tab


def html(page: Page, text: str) -> str:
    """What a text becomes, without the attributes that every link has and the frame of code blocks."""
    out = page.evaluate(WHOLE, text)
    out = out.replace(' rel="noopener noreferrer" target="_blank"', "")
    out = out.replace('<button type="button" class="copy-code">Copy</button>', "").replace("<br>", "\n")
    out = re.sub(r'<div class="code"><div class="code-head"><span class="language">(\w*)</span></div>'
                 r'<pre tabindex="0"><code>(.*?)</code></pre></div>', r"<pre \1>\2</pre>", out, flags=re.S)  # fmt: skip
    return out.replace('<div class="table" tabindex="0"><table>', "<table>").replace(
        "</table></div>", "</table>"
    )


CASES = [
    # paragraphs, headings, rules
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("# A\n## B ##\n###### C\n#no", "<h3>A</h3><h4>B</h4><h6>C</h6><p>#no</p>"),
    ("a\n\n---\n***\n_ _ _\nb", "<p>a</p><hr><hr><hr><p>b</p>"),
    ("a  \nb\\\nc", "<p>a\nb\nc</p>"),
    # emphasis
    ("**b** *i* ***bi*** ~~d~~ __b__ _i_", "<p><strong>b</strong> <em>i</em> <em><strong>bi</strong></em> "
     "<del>d</del> <strong>b</strong> <em>i</em></p>"),
    ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    ("snake_case_name 2 * 3 * 4 a*b* ** x", "<p>snake_case_name 2 * 3 * 4 a<em>b</em> ** x</p>"),
    ("**never closed *at all", "<p>**never closed *at all</p>"),
    ("*a **b* c**", "<p><em>a <em><em>b</em> c</em></em></p>"),
    (r"\*no\* \\ \a", r"<p>*no* \ \a</p>"),
    # code
    ("`a*b*` ``x`y`` ` z `", "<p><code>a*b*</code> <code>x`y</code> <code>z</code></p>"),
    ("`open", "<p>`open</p>"),
    ("```python\ndef f():\n    pass\n```\nafter", "<pre python>def f():\n    pass</pre><p>after</p>"),
    ("~~~\n```\n~~~", "<pre >```</pre>"),
    ("````md\n```\n````", "<pre md>```</pre>"),
    ("```\nnever closed\n\n  <b>", "<pre >never closed\n\n  &lt;b&gt;</pre>"),
    # links
    ("[a *b*](https://x.org/y_z_(1) \"t\")",
     '<p><a href="https://x.org/y_z_(1)">a <em>b</em></a></p>'),
    ("see https://x.org/a_b?c=1&d=2.", '<p>see <a href="https://x.org/a_b?c=1&amp;d=2">'
     "https://x.org/a_b?c=1&amp;d=2</a>.</p>"),
    ("(https://x.org)", '<p>(<a href="https://x.org">https://x.org</a>)</p>'),
    ("<https://x.org> [1] [a]() [b](/c) ![d](https://x.org/e.png)",
     '<p><a href="https://x.org">https://x.org</a> [1] [a]() [b](/c) <a href="https://x.org/e.png">d</a></p>'),
    # lists
    ("- a\n- b\n  - c\n    - d\n- e", "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p><ul><li><p>d</p></li></ul>"
     "</li></ul></li><li><p>e</p></li></ul>"),
    ("3. a\n4. b\n   more\n\n   para", '<ol start="3"><li><p>a</p></li><li><p>b\nmore</p><p>para</p></li></ol>'),
    ("1. a\n  - b\n2. c", "<ol><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ol>"),
    ("text:\n- a\n\n- b\n\nend", "<p>text:</p><ul><li><p>a</p></li><li><p>b</p></li></ul><p>end</p>"),
    ("- a\n  ```py\n  x\n  ```\n- b", "<ul><li><p>a</p><pre py>x</pre></li><li><p>b</p></li></ul>"),
    ("In\n2024. No list", "<p>In\n2024. No list</p>"),
    ("* a\n- b", "<ul><li><p>a</p></li></ul><ul><li><p>b</p></li></ul>"),
    # quotes
    ("> a\nlazy\n> - b\n\nc", "<blockquote><p>a\nlazy</p><ul><li><p>b</p></li></ul></blockquote><p>c</p>"),
    # tables
    ("| a | b |\n|:-:|--:|\n| `1` | 2 |\n| x\\|y |\n\nz",
     '<table><thead><tr><th class="center">a</th><th class="right">b</th></tr></thead><tbody>'
     '<tr><td class="center"><code>1</code></td><td class="right">2</td></tr>'
     '<tr><td class="center">x|y</td><td class="right"></td></tr></tbody></table><p>z</p>'),
    ("a | b\n--|--\n1 | 2", "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td>"
     "</tr></tbody></table>"),
    ("a | b\nno table", "<p>a | b\nno table</p>"),
    ("|a|b|\n|-|\n|1|", "<p>|a|b|\n|-|\n|1|</p>"),
    # entities and tags
    ("&lt;b&gt; &amp;amp; &#65; &#0; &nope; R&D a<br>b <br/>", "<p>&lt;b&gt; &amp;amp; A � &amp;nope; R&amp;D a\nb \n</p>"),
    ("<b>x</b> <!-- c --> <script>alert(1)</script>",
     "<p>&lt;b&gt;x&lt;/b&gt; &lt;!-- c --&gt; &lt;script&gt;alert(1)&lt;/script&gt;</p>"),
]  # fmt: skip


def test_cases(page):
    wrong = [(text, found, want) for text, want in CASES if (found := html(page, text)) != want]
    assert not wrong, "\n\n".join(f"{text!r}\n is {found}\nnot {want}" for text, found, want in wrong)


HOSTILE = [
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    "[x](javascript:hit())",
    "[x](JaVaScRiPt:hit())",
    "[x](java\tscript:hit())",
    "[x](data:text/html,<script>hit()</script>)",
    "[x](vbscript:hit())",
    "[x](//evil.example)",
    "[x](https://a'onmouseover='hit())",
    '[x](https://a"onmouseover="hit())',
    "![x](javascript:hit())",
    "![x](https://evil.example/pixel.png)",
    "<javascript:hit()>",
    "<https://a\"onclick='hit()'>",
    "```html onload=hit()\n</code></pre><script>hit()</script>\n```",
    '```"><img/src=x/onerror=hit()>\nx\n```',
    "`</code><script>hit()</script>`",
    "| <script>hit()</script> | [x](javascript:hit()) |\n|--|--|\n| <svg/onload=hit()> | x |",
    "- <details open ontoggle=hit()>\n> <iframe srcdoc='<script>parent.hit()</script>'>",
    "&lt;script&gt;hit()&lt;/script&gt; &#60;script&#62;hit()&#60;/script&#62;",
    "# <style>*{display:none}</style>",
    "[<img src=x onerror=hit()>](https://x.org)",
    "__proto__ constructor [__proto__](https://x.org)",
]
TAGS = set(
    "p h3 h4 h5 h6 ul ol li blockquote hr br div span pre code button table thead tbody tr th td a strong em del".split()
)
ATTRIBUTES = {"href", "rel", "target", "class", "start", "type", "tabindex"}


def test_hostile_text_stays_text(page):
    """What stands in the document afterwards: known elements and attributes, and links to the web only."""
    page.evaluate("window.hits = 0; window.hit = () => { window.hits += 1; }; null")
    found = page.evaluate(
        """async (texts) => {
            const { markdown, MarkdownStream } = await import("/ui/markdown/stream.js");
            const elements = [];
            for (const text of texts) {
                const whole = document.createElement("div");
                const grown = document.createElement("div");
                document.body.append(whole, grown);
                markdown(whole, text);
                const stream = new MarkdownStream(grown);
                for (const character of text) {
                    stream.push(character);
                    for (const element of grown.querySelectorAll("*")) elements.push(element.cloneNode());
                }
                elements.push(...whole.querySelectorAll("*"));
            }
            await new Promise((resolve) => setTimeout(resolve, 100));
            return elements.map((element) => [element.localName,
                [...element.attributes].map((attribute) => [attribute.name, attribute.value])]);
        }""",
        HOSTILE,
    )
    assert page.evaluate("window.hits") == 0
    assert {tag for tag, _ in found} <= TAGS
    attributes = [(tag, name, value) for tag, pairs in found for name, value in pairs]
    assert {name for _, name, _ in attributes} <= ATTRIBUTES
    links = {value for _, name, value in attributes if name == "href"}
    assert all(re.match(r"https?://", link) for link in links)
    assert all(not re.search(r"javascript:|data:", link, re.I) for link in links)


PIECES = [
    "word ", "a", "b ", "*", "**", "***", "_", "`", "``", "```", "~~", "~~~\n", "[", "](", "]", ")", "https://x.org", "!",
    "\n", "\n\n", "\n- ", "\n* ", "\n  - ", "\n    - ", "\n1. ", "\n2) ", "\n10", "\n> ", "\n>", "\n# ", "\n#", "\n---\n",
    "\n```py\n", "\n```\n", "\n| a | b |", "\n|---|---|", "\n|", " | ", "\\", "<", ">", "<br>", "&amp;", "&", "  \n", "\t",
    "é", "🙂", "漢", "\u00a0", "\n   ", "=", "\n-", "\n=", "---", "|-|",
]  # fmt: skip

FUZZ = """async ([pieces, seed, rounds]) => {
    const { markdown, MarkdownStream } = await import("/ui/markdown/stream.js");
    let state = seed >>> 0;  // a linear congruential generator: the same texts for the same seed
    const below = (n) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * n);
    };
    for (let round = 0; round < rounds; round += 1) {
        let text = "";
        for (let left = 1 + below(40); left > 0; left -= 1) text += pieces[below(pieces.length)];
        const whole = document.createElement("div");
        markdown(whole, text);
        const grown = document.createElement("div");
        const stream = new MarkdownStream(grown);
        for (let at = 0; at < text.length; ) {
            const size = 1 + below(below(3) ? 3 : 30);
            stream.push(text.slice(at, at + size));
            at += size;
        }
        stream.finish();
        if (grown.innerHTML !== whole.innerHTML) return [text, grown.innerHTML, whole.innerHTML];
    }
    return null;
}"""


def test_streamed_is_whole(page):
    """Whatever the text and however it is cut, the end of the stream shows what the whole text shows."""
    seed = new_seed()
    if different := page.evaluate(FUZZ, [PIECES, seed, 12000]):
        text, grown, whole = different
        pytest.fail(f"TENON_TEST_SEED={seed}\n{text!r}\nstreamed {grown}\n   whole {whole}")


ANSWER = """## Title with `code`

Some **bold words** and *more* in [a link](https://x.org/path), then ~~gone~~.

1. first **thing**
2. second

| name | value |
|------|------:|
| x    | 1     |

```js
const a = "**no**";
```
> quoted text

* one
* two
"""


def test_nothing_flickers(page):
    """While an answer grows, no mark is seen that will be gone later, no element turns into another."""
    shown, last = page.evaluate(GROWING, ANSWER)
    assert last == page.evaluate(WHOLE, ANSWER)
    for html in shown:
        text = re.sub(r"<pre.*?</pre>|<[^>]*>", "", html, flags=re.S)
        assert not re.search(r"[*`#\[\]|>~]|https", text), html
    kinds = re.compile(r"<(h\d|p|ol|ul|table|pre|blockquote|strong|em|del|a|code)\b")
    for before, after in pairwise(shown):
        assert kinds.findall(after)[: len(kinds.findall(before))] == kinds.findall(before), (before, after)


def test_finished_blocks_are_left_alone(page):
    """Work per token does not grow with the answer: what is finished is neither parsed nor touched again."""
    touched = page.evaluate(
        """async () => {
            const { MarkdownStream } = await import("/ui/markdown/stream.js");
            const target = document.createElement("div");
            const stream = new MarkdownStream(target);
            let touched = new Set();
            const changes = [];
            let longest = 0;
            const watch = new MutationObserver((records) => records.forEach(({ target: node }) => {
                while (node.parentNode && node.parentNode !== target) node = node.parentNode;
                if (node !== target) touched.add([...target.childNodes].indexOf(node));
            }));
            watch.observe(target, { subtree: true, childList: true, characterData: true });
            for (let i = 0; i < 300; i += 1) {
                stream.push(`Paragraph **${i}** with some words.\\n\\n`);
                longest = Math.max(longest, stream.tail.length);
                await null;
                changes.push(target.childElementCount - Math.min(...touched, target.childElementCount));
                touched = new Set();
            }
            return [longest, Math.max(...changes), target.childElementCount];
        }"""
    )
    longest, deepest, count = touched
    assert count == 300
    assert longest < 200
    assert deepest <= 2


# Texts on which a careless parser takes quadratic time or worse: a megabyte must not stop the page.
MEAN = [
    "*a ",
    "**a",
    "[",
    "[a](",
    "`",
    "`a ``b ",
    "> ",
    "- ",
    "<",
    "&",
    "_a_",
    "a|",
    "![a](b",
    "*",
    "\\",
    "~~a",
    "*a_b",
    "](",
    "# #",
]


def test_mean_texts_take_no_time(page):
    """Ten times the text, about ten times the steps: how often each block of the scripts has run."""
    browser = page.context.new_cdp_session(page)
    browser.send("Profiler.enable")
    browser.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": True})

    def steps(text: str) -> int:
        browser.send("Profiler.takePreciseCoverage")  # counting begins anew
        page.evaluate(WHOLE, text)
        scripts = browser.send("Profiler.takePreciseCoverage")["result"]
        functions = [f for script in scripts if "/ui/" in script["url"] for f in script["functions"]]
        return sum(block["count"] for function in functions for block in function["ranges"])

    page.evaluate(WHOLE, "")  # the scripts are loaded
    for piece in MEAN:
        few, many = steps(piece * (6000 // len(piece))), steps(piece * (60000 // len(piece)))
        assert 0 < many < 20 * few, piece  # quadratic is 100 times as many
