"""Write docs/reference/errors.md from `tenon.server.codes.CODES`. A test checks that it is current."""

from __future__ import annotations

from pathlib import Path

from tenon.server.codes import CODES

PATH = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"
HEAD = """# Errors

Made from the code by `make docs`. An error is OpenAI's object: `message`, `type`, `param` and `code`; under
`/v1/messages` it is Anthropic's, without a code. No other code is ever sent, and no other 5xx.

| `code` | status | when |
|---|---|---|
"""


def reference() -> str:
    return HEAD + "".join(
        f"| `{code}` | {', '.join(map(str, statuses))} | {meaning} |\n"
        for code, (statuses, meaning) in CODES.items()
    )


if __name__ == "__main__":
    PATH.write_text(reference())
