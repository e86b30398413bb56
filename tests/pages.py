"""Reads the Markdown pages of the project for tests: blocks, tables, links, commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = (".github", "genzoo", "configs", "launch", "tests")
PAGES = (
    ROOT / "README.md",
    *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md"))),
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Targets of links and pictures within the project."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text()))
    return [target for target in targets if not target.startswith("http")]


def tables(page: Path) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, the header first."""
    found, rows = [], []
    for line in [*prose(page.read_text()).splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append([rows[0], *rows[2:]])
            rows = []
    return found


def table(page: Path, first: str) -> list[list[str]]:
    """The rows of the table whose header begins with this cell."""
    (rows,) = [rows for rows in tables(page) if rows[0][0] == first]
    return rows[1:]


def spans(text: str) -> list[str]:
    """What is set as code in a line of prose."""
    return re.findall(r"`([^`\n]+)`", text)


def lines_of_shell(page: Path) -> Iterator[list[str]]:
    """The words of each line of the blocks of shell, without comments; `&&` begins a new line."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                yield words[: words.index("&&")]
                words = words[words.index("&&") + 1 :]
            if words:
                yield words


def arguments_of_genzoo(words: list[str]) -> list[str] | None:
    """What a command passes to genzoo.main, itself or by launch/local.py; None for another."""
    if "genzoo.main" in words:
        return words[words.index("genzoo.main") + 1 :]
    if "launch/local.py" in words:
        return words[words.index("--") + 1 :]
    return None
