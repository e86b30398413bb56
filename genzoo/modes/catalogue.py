"""`--mode=list`: what there is in configs/, by what each file says of itself.

A config's docstring starts with a line that says what it is. Below stand the command, and in any
paragraph or entry of a variant, after these words: "Cost: ...", "Result: ..." and "Published: ...".
The variants are a list at the end:

    Variants:
        :laptop  what it is. Cost: five minutes on 2 CPU cores. Result: about 4.2 bits/dim.

No config is executed for this.
"""

import ast
import logging
import re
from pathlib import Path

from genzoo.core.errors import UserError

_log = logging.getLogger("genzoo")
_LABELS = ("Cost", "Result", "Published")
_VARIANT = re.compile(r"^ +:(\w+) +(.*)$")


def catalogue(folder: Path = Path("configs")) -> dict:
    """{"configs": [...]}: every config and variant of a folder, and a table of them in the log."""
    files = sorted(folder.glob("*.py"))
    if not files:
        raise UserError(
            f"There are no configs in {folder}/: start --mode=list from the folder of the project."
        )
    found = [entry for file in files for entry in entries(file)]
    _log.info("%s", table(found))
    return {"configs": found}


def entries(file: Path) -> list[dict[str, str]]:
    """The config itself and its variants, each as far as the docstring says: "config" (what
    --config takes), "about", "cost", "result", "published"."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    whole, variants = _split(text)
    first, _, rest = whole.partition("\n")
    found = [{"config": str(file), "about": first, **_labelled(rest)[1]}]
    for name, said in variants.items():
        about, labels = _labelled(said)
        found.append({"config": f"{file}:{name}", "about": about, **labels})
    return found


def _split(text: str) -> tuple[str, dict[str, str]]:
    """(a docstring without its list of variants, the text of each variant)."""
    whole, variants, name = [], {}, ""
    for line in text.split("\n"):
        if entry := _VARIANT.match(line):
            name = entry.group(1)
            variants[name] = entry.group(2)
        elif name and line.startswith("      "):
            variants[name] += " " + line.strip()
        else:
            name = ""
            whole.append(line)
    return "\n".join(whole), variants


def _labelled(text: str) -> tuple[str, dict[str, str]]:
    """(the text before the first label, what each label says: up to the next one, the end of the
    paragraph or the list of variants)."""
    text = re.sub(r"^Variants:$", "", text, flags=re.M)
    first, *parts = re.split(rf"\b({'|'.join(_LABELS)}): ", text)
    said = {
        label.lower(): " ".join(part.split("\n\n")[0].split()).removesuffix(".")
        for label, part in zip(parts[::2], parts[1::2], strict=True)
    }
    return " ".join(first.split()).removesuffix("."), said


def table(found: list[dict[str, str]]) -> str:
    """The entries for a reader."""
    lines = []
    for entry in found:
        file, _, variant = entry["config"].partition(":")
        said = [f"{label}: {entry[label]}" for label in map(str.lower, _LABELS) if label in entry]
        first, *rest = [entry["about"], *said] if entry["about"] else said or [""]
        if variant:
            lines.append(f"    :{variant:<14} {first}")
            lines += [f"{'':20}{line}" for line in rest]
        else:
            lines += ["", file, *(f"    {line}" for line in (first, *rest))]
    return "\n".join(lines)
