"""A page as one HTML file that loads nothing: text, style, script, charts and pictures are inside.

Its policy forbids everything else. The one script and the one style sheet are named by their
hashes, so that nothing that a run contains can add another. The template escapes every text.
"""

import base64
import hashlib
from functools import cache
from importlib import resources

from markupsafe import Markup

from genzoo.evaluate.report.parts import Index, Page

MARK = "genzoo-report"
"""The name of the generator in the file, by which a report is told from other files."""
GALLERY = "genzoo-gallery"
"""The same for the index of a gallery."""
_FOLDER = resources.files("genzoo") / "evaluate" / "report"


def render(page: Page | Index) -> str:
    """The HTML of a page, or of the index of a gallery."""
    name, mark = ("gallery", GALLERY) if isinstance(page, Index) else ("page", MARK)
    style, script = _text("page.css"), _text("page.js")
    if name == "gallery":
        style += _text("gallery.css")
    policy = "; ".join(
        (
            "default-src 'none'", "img-src data:", f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'", "base-uri 'none'", "form-action 'none'",
        )
    )  # fmt: skip
    return (
        _templates()
        .get_template(f"{name}.html")
        .render(page=page, style=Markup(style), script=Markup(script), policy=policy, mark=mark)
    )


@cache
def _templates():
    """The templates, from the files beside this one."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # here: few calls make a page

    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )  # fmt: skip


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
