"""`--mode=list`: lists the configs in configs/, from their docstrings.

The docstring of a config starts with a one-line summary. Below it are the command and, in any
paragraph or in the entry of a variant, "Cost: ...", "Result: ..." and "Published: ...". The
variants are a list at the end:

    Variants:
        :laptop  its summary. Cost: five minutes on 2 CPU cores. Result: about 4.2 bits/dim.

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
    """{"configs": [...]}: every config and variant in a folder; logs them as a table. Raises
    UserError if the folder holds none."""
    files = sorted(folder.glob("*.py"))
    if not files:
        raise UserError(
            f"There are no configs in {folder}/: run --mode=list in the project's folder."
        )
    listed = [entry for file in files for entry in entries(file)]
    _log.info("%s", table(listed))
    return {"configs": listed}


def entries(file: Path) -> list[dict[str, str]]:
    """The config itself and its variants: "config" (as --config takes it), "about", and "cost",
    "result" and "published" if the docstring has them."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    whole, variants = _split(docstring)
    first, _, rest = whole.partition("\n")
    listed = [{"config": str(file), "about": first, **_labelled(rest)[1]}]
    for name, text in variants.items():
        about, labels = _labelled(text)
        listed.append({"config": f"{file}:{name}", "about": about, **labels})
    return listed


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
    """(the text before the first label, label -> its text). The text of a label ends at the next
    label, at the end of the paragraph or at the list of variants."""
    text = re.sub(r"^Variants:$", "", text, flags=re.M)
    first, *parts = re.split(rf"\b({'|'.join(_LABELS)}): ", text)
    labelled = {
        label.lower(): " ".join(part.split("\n\n")[0].split()).removesuffix(".")
        for label, part in zip(parts[::2], parts[1::2], strict=True)
    }
    return " ".join(first.split()).removesuffix("."), labelled


def table(listed: list[dict[str, str]]) -> str:
    """The entries as a table for reading."""
    lines = []
    for entry in listed:
        file, _, variant = entry["config"].partition(":")
        notes = [f"{label}: {entry[label]}" for label in map(str.lower, _LABELS) if label in entry]
        first, *rest = [entry["about"], *notes] if entry["about"] else notes or [""]
        if variant:
            lines.append(f"    :{variant:<14} {first}")
            lines += [f"{'':20}{line}" for line in rest]
        else:
            lines += ["", file, *(f"    {line}" for line in (first, *rest))]
    return "\n".join(lines)
