"""The documentation of Python's standard library, one document per public object.

A document is the docstring of a module, class, function or method. Its title is the dotted name, no
part of which begins with an underscore. Sources are parsed and not imported, so that no module is
run; only the modules in `_COMPILED`, which are part of the interpreter, are imported. Of several
documents with the same text the first is kept, and documents of fewer than `MIN_WORDS` words are
dropped.

The class of a document is its top-level module if that has at least `MIN_DOCUMENTS` documents, and
"other" otherwise. One document in `HOLDOUT` belongs to the test split, by the CRC-32 of its title.
The documents depend on the version of Python, which enters the checksum, and on how it was built:
some systems omit modules.
"""

import ast
import importlib
import inspect
import platform
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.data.counts import words_of
from genzoo.data.documents import OTHER, Corpus
from genzoo.data.source import check_split, held_out

MIN_WORDS = 5
"""Words of the shortest document, not counting stop words."""
MIN_DOCUMENTS = 20
"""Documents of the smallest module that is a class of its own."""
HOLDOUT = 5
"""About one document in this many is held out for testing."""
_COMPILED = ("builtins", "cmath", "itertools", "math", "time")
_SOURCES_OF = {"_pyio": "io", "_pydecimal": "decimal", "_pydatetime": "datetime"}
"""Modules written in Python -> the public module whose docstrings they hold."""
_SKIPPED = frozenset({
    "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter",
    "turtledemo",
})  # fmt: skip
"""Packages of tables, tests or programs, and those that some installations or versions lack."""
_TESTS = frozenset({"test", "tests"})


def read(split: str) -> Corpus:
    """The documents of the "train" or "test" split, sorted by title. Raises UserError if this
    Python comes without its sources."""
    check_split(split)
    texts, labels = documents()
    titles = tuple(title for title in texts if held_out(title, HOLDOUT) == (split == "test"))
    classes = sorted(set(labels.values()) - {OTHER})
    return Corpus(
        name="docstrings",
        titles=titles,
        texts=tuple(texts[title] for title in titles),
        labels=tuple(labels[title] for title in titles),
        classes=(*classes, OTHER),
        edition=f"Python {platform.python_version()}",
    )


@cache
def documents() -> tuple[dict[str, str], dict[str, str]]:
    """(title -> text, title -> class) of all documents, sorted by title."""
    texts: dict[str, str] = {}
    for title, text in (*_parsed(Path(sysconfig.get_path("stdlib"))), *_compiled()):
        if len(words_of(text)) >= MIN_WORDS:
            texts.setdefault(title, text)
    if not texts:
        raise UserError(
            f"data.name = 'docstrings' needs the sources of Python's standard library, which are "
            f"not in {sysconfig.get_path('stdlib')}: use another Python, or other data."
        )
    # A text that several objects share belongs to the first of them.
    first = {text: title for title, text in sorted(texts.items(), reverse=True)}
    kept = {title: texts[title] for title in sorted(first.values())}
    sizes = Counter(_module(title) for title in kept)
    large = {module for module, size in sizes.items() if size >= MIN_DOCUMENTS}
    return kept, {t: _module(t) if _module(t) in large else OTHER for t in kept}


def _module(title: str) -> str:
    return title.split(".")[0]


def _parsed(library: Path) -> Iterator[tuple[str, str]]:
    for name in sorted(sys.stdlib_module_names - _SKIPPED):
        known = _SOURCES_OF.get(name, name)
        if known.startswith("_"):
            continue
        if (file := library / f"{name}.py").is_file():
            yield from _documented_in(file, known)
        for file in sorted((library / name).rglob("*.py")):
            parts = file.relative_to(library).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not (_TESTS & set(parts) or any(part.startswith("_") for part in parts)):
                yield from _documented_in(file, ".".join(parts))


def _documented_in(file: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    if text := ast.get_docstring(tree):
        yield module, text
    yield from _documented(tree.body, module)


def _documented(body: list[ast.stmt], place: str) -> Iterator[tuple[str, str]]:
    """(title, text) of the public objects that are defined in the body of a module or class."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            title = f"{place}.{node.name}"
            if text := ast.get_docstring(node):
                yield title, text
            if isinstance(node, ast.ClassDef):
                yield from _documented(node.body, title)
        elif isinstance(node, ast.If | ast.Try):
            handlers = [h.body for h in getattr(node, "handlers", ())]
            for part in (node.body, *handlers, node.orelse, getattr(node, "finalbody", [])):
                yield from _documented(part, place)


def _compiled() -> Iterator[tuple[str, str]]:
    for name in _COMPILED:
        module = importlib.import_module(name)
        yield name, inspect.getdoc(module) or ""
        for title, thing in _public(vars(module), name):
            # An interactive shell may add names of its own to builtins.
            if inspect.isbuiltin(thing) or (inspect.isclass(thing) and thing.__module__ == name):
                yield title, _text(thing)
            if inspect.isclass(thing) and thing.__module__ == name:
                for method, value in _public(vars(thing), title):
                    yield method, _text(value)


def _public(namespace: dict, place: str) -> Iterator[tuple[str, object]]:
    for name, thing in sorted(namespace.items()):
        if not name.startswith("_"):
            yield f"{place}.{name}", thing


def _text(thing: object) -> str:
    text = getattr(thing, "__doc__", None)
    return inspect.cleandoc(text) if isinstance(text, str) else ""
