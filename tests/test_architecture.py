"""The architecture: floors, cycles, Flax only in nets, the size of files, docstrings."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "genzoo").rglob("*.py"))
FLOORS = {
    "core": 0, "runtime": 0, "math": 1, "nets": 1, "data": 1, "samplers": 2, "families": 3,
    "systems": 4,
    "train": 5, "evaluate": 5,
    "settings": 6, "config": 6, "builders": 6, "build": 6, "check": 6, "needs": 6,
    "workdir": 6, "kept": 6, "record": 6, "restart": 6, "sample_folders": 6, "experiment": 6,
    "requests": 6, "resolve": 6, "runs": 6, "modes": 7,
    "api": 8, "main": 8,
}  # fmt: skip
# Packages on one floor that must not import each other.
SIBLINGS = {"math", "nets", "data", "train", "evaluate"}
ALONE = {"core"}  # imports only itself


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


@cache
def imported(file: Path) -> set[str]:
    """The full names of all imports in a file, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return names


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "genzoo" and len(parts) > 1 else None


def test_imports_go_down_only():
    wrong = []
    for name, file in MODULES.items():
        here = room(name)
        if here is None:
            continue
        assert here in FLOORS, f"{here} is a new room: give it a floor"
        for other in sorted(filter(None, map(room, imported(file)))):
            upwards = FLOORS[other] > FLOORS[here]
            sideways = here in SIBLINGS and FLOORS[other] == FLOORS[here]
            if upwards or (other != here and (sideways or here in ALONE)):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_no_import_cycles():
    graph = {name: imported(file) & MODULES.keys() for name, file in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_flax_stays_in_nets():
    users = {n for n in MODULES if any(i.split(".")[0] == "flax" for i in imported(MODULES[n]))}
    assert [name for name in sorted(users) if room(name) != "nets"] == []


def test_no_heavy_framework_is_imported():
    allowed = {"genzoo.data.prepare_tfds"}  # a separate process with its own extra
    for name, file in MODULES.items():
        heavy = {n.split(".")[0] for n in imported(file)} & {"tensorflow", "torch"}
        assert not heavy or name in allowed, f"{name} imports {heavy}"


def test_pickle_is_read_in_one_restricted_place_only():
    texts = {name: file.read_text() for name, file in MODULES.items()}
    readers = {name for name, text in texts.items() if "Unpickler" in text}
    assert readers == {"genzoo.core.arrays_only"}
    assert "class _ArraysOnly(pickle.Unpickler)" in texts["genzoo.core.arrays_only"]
    for name, text in texts.items():
        assert not re.search(r"pickle\.(loads?|dumps?)\b|allow_pickle=True", text), name


PYTHON = [*FILES, *sorted((ROOT / "configs").glob("*.py")), *sorted((ROOT / "launch").glob("*"))]


def test_files_stay_small():
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in PYTHON}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_public_things_have_docstrings():
    silent = []
    for name, file in MODULES.items():
        tree = ast.parse(file.read_text())
        things = {name: tree} | {
            f"{name}.{node.name}": node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        }
        silent += [thing for thing, node in things.items() if not ast.get_docstring(node)]
    assert silent == []


def test_top_level_holds_what_the_design_names_and_nothing_else():
    allowed = {"pyproject.toml", "genzoo", "configs", "launch", "tests", "README.md", "LICENSE"}
    made = {"build", "dist", "runs", "genzoo.egg-info", "__pycache__"}
    present = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert present <= allowed | made


def test_no_unfinished_marks():
    for file in FILES:
        assert not re.search(r"TODO|FIXME|XXX|raise NotImplementedError", file.read_text()), file


def test_nothing_above_build_knows_a_family_and_the_trainer_knows_none():
    for name, file in MODULES.items():
        if room(name) in ("train", "evaluate", "experiment", "modes", "main"):
            assert not {n for n in imported(file) if room(n) == "families"}, name


def test_the_linter_passes():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format=concise", "."],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_no_two_test_files_share_a_name():
    # pytest imports them by that name alone, and refuses the second one in a run of both.
    names = sorted(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert sorted(set(names)) == names
