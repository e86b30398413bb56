"""The pages are correct: links, pictures, commands, keys, and every table against what it lists."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from pages import (
    PAGES,
    ROOT,
    anchors,
    arguments_of_genzoo,
    lines_of_shell,
    links,
    name,
    prose,
    spans,
    table,
)
from test_architecture import FLOORS

from genzoo import build, check, config, main
from genzoo.builders import datasets, sampling
from genzoo.builders.conditions import TRANSFORMS, ConditionSettings
from genzoo.evaluate.distances import METRICS
from genzoo.evaluate.features.table import NETWORKS
from genzoo.modes import catalogue, illustrate

CONFIGS, GENZOO = ROOT / "configs" / "README.md", ROOT / "genzoo" / "README.md"
SAMPLERS, DATA = (ROOT / "genzoo" / room / "README.md" for room in ("samplers", "data"))
EVALUATE, LAUNCH = ROOT / "genzoo" / "evaluate" / "README.md", ROOT / "launch" / "README.md"
PROMISES = ROOT / "tests" / "README.md"
_FILE = r"(?<![\w/.])((?:tests|launch|configs)/[\w/]+\.(?:py|sh|sbatch|yaml))"
NAMES = {file.stem for file in (ROOT / "configs").glob("*.py")}


@cache
def documented() -> set[str]:
    """Every key that any config may have."""
    return {
        key
        for file in (ROOT / "configs").glob("*.py")
        for key in check.documented(check.check(config.load(f"{file}:smoke")))
    }


# --- every page -----------------------------------------------------------------------------------


def test_links_pictures_and_their_anchors_exist():
    wrong, shown = [], set()
    for page in PAGES:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{name(page)}: {link}")
            shown.add(target)
        assert not re.search(r"!\[\]\(", page.read_text()), f"{name(page)}: a picture without words"
    assert wrong == []
    assert set((ROOT / ".github" / "pictures").iterdir()) <= shown


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_genzoo_has_flags_a_config_and_values_that_it_takes(page):
    """A command without --config continues the run in its workdir, which an earlier one trains."""
    trained = {}
    for words in lines_of_shell(page):
        given = arguments_of_genzoo(words)
        if given is None:
            continue
        arguments, overrides = main._parser().parse_known_args(given)
        assert not main._unknown_flag(main._parser(), overrides), given
        if arguments.mode in ("list", "doctor") or arguments.workdirs:
            assert not overrides and set(map(str, arguments.workdirs)) <= trained.keys(), given
            continue
        place = str(arguments.workdir)
        raw = config.load(arguments.config) if arguments.config else trained[place]
        raw = config.override(raw, config.parse_overrides(overrides))
        checked = check.check(raw, devices=raw.get("mesh", {}).get("fsdp", 1))
        illustrated = getattr(build.sampling(checked), "pictures", "")
        kinds = illustrate.PICTURES.values()
        assert set(filter(None, illustrated.split(","))) <= {name for of in kinds for name in of}
        if arguments.mode == "train" and arguments.workdir:
            names = trained.setdefault(f"{place} of", arguments.config)
            assert names == arguments.config, f"{place} holds two runs"
            trained[place] = raw


def test_every_script_module_and_extra_named_exists():
    wrong = []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in PAGES:
        text = page.read_text()
        files = re.findall(_FILE, text)
        wrong += [f"{name(page)}: {file}" for file in files if not (ROOT / file).is_file()]
        for module in re.findall(r"-m (genzoo(?:\.\w+)+)", text):
            if not (ROOT / f"{module.replace('.', '/')}.py").is_file():
                wrong.append(f"{name(page)}: {module}")
        for extra in re.findall(r"(?:genzoo|\.)\[([\w-]+)\]", text):
            if extra not in extras["optional-dependencies"]:
                wrong.append(f"{name(page)}: the extra {extra}")
    assert wrong == []


def test_every_config_named_exists():
    for page in PAGES:
        named = re.findall(r"--config=(configs/\S+?\.py(?::\w+)?)", page.read_text())
        of_page = prose(page.read_text())
        short = [span for span in spans(of_page) if re.fullmatch(r"\w+(:\w+)?", span)]
        for each in [*named, *(span for span in short if span.partition(":")[0] in NAMES)]:
            assert config.load(each), each


def test_every_key_named_exists():
    wrong = []
    sections = {key.partition(".")[0] for key in documented() if "." in key}
    key_of = re.compile(r"(?:--config\.)?(([a-z]\w*)\.[a-z_.]+)(?:=.*)?")
    for page in PAGES:
        given = re.findall(r"--config\.([a-z_.]+)=", page.read_text())
        coded = map(key_of.fullmatch, spans(prose(page.read_text())))
        given += [key[1] for key in coded if key and key[2] in sections and not is_file(key[1])]
        for key in set(given) - {"section.key"}:
            if not key_exists(key):
                wrong.append(f"{name(page)}: {key}")
    assert wrong == []


def is_file(key: str) -> bool:
    return key.endswith((".json", ".jsonl", ".html", ".py", ".md", ".png", ".bin"))


def key_exists(key: str) -> bool:
    """Whether a config may have this key. The user chooses the names of conditions and averages,
    and a section such as sample.conditions holds any names."""
    *sections, last = key.split(".")
    named = ".".join([*sections[:-1], "NAME", last])
    section = ".".join(sections)
    free = section in documented() and not any(
        other.startswith(f"{section}.NAME.") for other in documented()
    )
    return key in documented() or named in documented() or free


# --- tables ---------------------------------------------------------------------------------------


def test_the_table_of_modes():
    assert sorted(spans(row[0])[0] for row in table(GENZOO, "mode")) == sorted(main._MODES)


def test_the_layout_has_every_room_on_its_floor():
    (drawn,) = re.findall(r"## Layout\n\n```\n(.*?)```", GENZOO.read_text(), re.S)
    floors, floor = {}, 0
    for line in drawn.splitlines():
        floor = int(line[0]) if line[0].isdigit() else floor
        for room in re.findall(r"(\w+)(?:\.py|/)", line[3:34]):
            floors[room] = floor
    rooms = {path.stem for path in (ROOT / "genzoo").iterdir() if not path.name.startswith("_")}
    assert floors == {room: FLOORS[room] for room in rooms & FLOORS.keys()}


def test_the_table_of_solvers():
    from samplers.order_table import ORDERS

    rows = {row[0]: spans(row[1]) for row in table(SAMPLERS, "setting")}
    plain = {kind: {n for n in names if "." not in n} for kind, names in rows.items()}
    assert plain["`sample.method`, deterministic"] == {*ORDERS, sampling.ADAPTIVE}
    stochastic = plain["`sample.method`, stochastic"]
    assert sampling.METHODS.keys() - ORDERS.keys() <= stochastic <= sampling.METHODS.keys()
    assert stochastic & ORDERS.keys() == {"ddim", "edm", "euler", "dpm2"}
    assert plain["`sample.grid`"] == sampling.GRIDS
    assert plain["the last steps"] == sampling.FINAL_ORDERS.keys()
    drawn = {name for of in illustrate.PICTURES.values() for name in of}
    assert drawn <= plain["`sample.pictures`"]
    count = len(sampling.METHODS) + 1
    assert f"{count} solvers" in (ROOT / "README.md").read_text()
    assert f"{count} [solvers]" in CONFIGS.read_text()


def test_the_table_of_conditions():
    rows = [spans(row[0]) for row in table(CONFIGS, "key of a condition")]
    assert {key for row in rows for key in row} == set(ConditionSettings.__dataclass_fields__)
    (made,) = [row[1] for row in table(CONFIGS, "key of a condition") if "`of`" in row[0]]
    assert {*spans(made), "none"} == TRANSFORMS.keys()


def test_the_table_of_data_sets():
    listed = [span for row in table(DATA, "`data.name`") for span in spans(row[0])]
    assert sorted(listed) == sorted(datasets.names())


def test_the_tables_of_distances():
    assert [spans(row[0])[0] for row in table(EVALUATE, "metric")] == list(METRICS)
    listed = {span for row in table(EVALUATE, "feature network") for span in spans(row[0])}
    assert listed == {*NETWORKS, "own:WORKDIR"}


def test_the_table_of_compiled_configs():
    import importlib.util

    spec = importlib.util.spec_from_file_location("table", ROOT / "launch" / "compile_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = LAUNCH.read_text()
    assert text.index(script.BEGIN) < text.index("| config (batch) |") < text.index(script.END)
    assert f"| config (batch) | {' | '.join(script.TOPOLOGIES)} |" in text
    rows = [re.fullmatch(r"(\w+) \((\d+)\)", row[0]) for row in table(LAUNCH, "config (batch)")]
    assert len(rows) > 10 and {row[1] for row in rows} <= set(script.full_size())
    for row in rows:
        assert config.load(row[1])["train"]["batch_size"] == int(row[2]), row[1]


def test_every_topology_named_is_known():
    from genzoo.runtime.topology import named

    listed = re.findall(r"`((?:\d+x)?(?:v\d\w*|h\d00|cpu)[:-][\dx]+)`", LAUNCH.read_text())
    assert len(listed) > 6 and all(named(each).count for each in listed)


# --- models and results ---------------------------------------------------------------------------


def names_of_configs(text: str) -> set[str]:
    """The configs, without variants, that are set as code in a text."""
    found = {span.partition(":")[0] for span in spans(text)}
    return found & NAMES


def test_the_table_of_models_has_every_family_and_every_config():
    rows = table(CONFIGS, "model")
    families = {config.load(name)["family"]["name"] for name in NAMES}
    rooms = r"(?:families|systems)/(\w+)\.py"
    files = {link for row in rows for link in re.findall(rooms, row[1])}
    assert files - {"latent"} == build.FAMILIES.keys() == families  # latent space: in any of them
    assert {name for row in rows for name in names_of_configs(row[2])} == NAMES


def test_what_is_called_trained_has_a_result_and_nothing_else_has():
    reported = {name for row in table(CONFIGS, "run") for name in names_of_configs(row[1])}
    for model, _, configs, maturity, _ in table(CONFIGS, "model"):
        assert set(maturity.split(", ")) <= {"builds", "exact", "trained"}, model
        assert ("trained" in maturity) == bool(names_of_configs(configs) & reported), model


def test_every_count_and_constant_of_the_table_of_models_is_tested():
    tested = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for model, *_, evidence in table(CONFIGS, "model"):
        for number in re.findall(r"-?\d[\d,]*\d(?:\.\d+)?", evidence):
            if len(re.sub(r"\D", "", number)) > 4:
                assert number.replace(",", "_") in tested, f"{model}: {number}"


def decimals(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])\d+\.\d+", text)


def rounds_to(number: str, other: str) -> bool:
    places = len(number.partition(".")[2])
    return f"{float(other):.{places}f}" == number


def test_the_results_are_those_of_the_docstrings_of_the_configs():
    """Every decimal number in a "Result:" of a config is in the row of its run, or rounds one."""
    told = {}
    for row in table(CONFIGS, "run"):
        for span in spans(row[1]):
            told.setdefault(span, []).extend(decimals(row[2]))
    seen = 0
    for file in sorted((ROOT / "configs").glob("*.py")):
        for entry in catalogue.entries(file):
            if "result" not in entry or not decimals(entry["result"]):
                continue
            run = Path(entry["config"]).name.replace(".py", "")
            for number in decimals(entry["result"]):
                assert any(rounds_to(number, other) for other in told[run]), f"{run}: {number}"
                seen += 1
    assert seen > 30


# --- promises -------------------------------------------------------------------------------------


def test_every_promise_names_tests_that_exist():
    defined: dict[str, set[Path]] = {}
    for file in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                defined.setdefault(node.name, set()).add(file)
    files: list[Path] = []
    rows = table(PROMISES, "promise")
    for promise, tests in rows:
        named = spans(tests)
        if promise.startswith("**"):
            files = [ROOT / "tests" / "trust" / Path(span).name for span in named]
            assert all(file.is_file() for file in files), promise
            continue
        assert named, promise
        for span in named:
            file, _, test = span.rpartition("::")
            if span.endswith(".py"):
                assert (ROOT / "tests" / "trust" / span) in files, span
            elif "/" in file:
                assert ROOT / file in defined[test], span
            else:
                own = [one for one in files if not file or one.name == file]
                assert defined.get(test, set()) & set(own), span
    assert len(rows) > 35
