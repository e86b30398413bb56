"""A page as one HTML file that loads nothing: text, style, script, charts and pictures are inside.

Its policy forbids everything else. The one script and the one style sheet are named by their
hashes, so that nothing that a run contains can add another. The template escapes every text.
"""

import base64
import hashlib
from functools import cache
from importlib import resources

from markupsafe import Markup

from genzoo.evaluate.report.parts import Page

MARK = "genzoo-report"
"""The name of the generator in the file, by which a report is told from other files."""


def render(page: Page) -> str:
    """The HTML of a page."""
    template, style, script = _parts()
    policy = "; ".join(
        (
            "default-src 'none'", "img-src data:", f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'", "base-uri 'none'", "form-action 'none'",
        )
    )  # fmt: skip
    return template.render(
        page=page, style=Markup(style), script=Markup(script), policy=policy, mark=MARK
    )


@cache
def _parts():
    """(the template, the style sheet, the script), from the files beside this one."""
    from jinja2 import Environment, StrictUndefined  # here, because few calls make a page

    folder = resources.files("genzoo") / "evaluate" / "report"
    text, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text), style, script


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
