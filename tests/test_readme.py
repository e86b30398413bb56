"""The README: CI runs its commands, one reads it in five minutes, its numbers have their source."""

import re

from pages import PAGES, ROOT, lines_of_shell, spans, table, tables

from genzoo import config

PAGE = ROOT / "README.md"
README = PAGE.read_text()


def test_ci_runs_the_readmes_test_command():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    (command,) = [b.strip() for b in blocks if "pytest" in b]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_first_command_trains_without_a_download():
    first = next(words for words in lines_of_shell(PAGE) if "genzoo.main" in words)
    (named,) = [word.partition("=")[2] for word in first if word.startswith("--config=")]
    assert config.load(named)["data"]["name"] == "fashion_mini"


def test_one_reads_it_in_five_minutes():
    assert len(README.splitlines()) <= 180
    assert len(re.findall(r"\w+", re.sub(r"\]\([^)]*\)", "", README))) <= 1800


def test_every_number_of_the_models_stands_beside_their_config_elsewhere():
    """The table of models by room quotes the results of other pages and of the configs."""
    elsewhere = [line for page in PAGES if page != PAGE for line in page.read_text().splitlines()]
    rows = [row for row in table(PAGE, "model") if any(row[1:])]
    assert len(rows) > 20
    for model, paper, configs, run, number in rows:
        assert paper and run and number, model
        names = [span.partition(":")[0] for span in spans(f"{configs} {run}")]
        sources = [line for line in elsewhere if line.startswith(f"| {model} ")]
        sources += [line for line in elsewhere if any(f"`{name}" in line for name in names)]
        sources += [
            " ".join((ROOT / "configs" / f"{name}.py").read_text().split())
            for name in names
            if (ROOT / "configs" / f"{name}.py").is_file()
        ]
        for figure in re.findall(r"\d[\d,]*\.?\d+(?: ± [\d.]+)?", number):
            told = re.compile(rf"(?<![\d.]){re.escape(figure)}(?!\d)")
            assert any(told.search(source) for source in sources), f"{model}: {figure}"


def test_the_distances_are_in_order_and_those_of_their_page():
    (rows,) = [rows[1:] for rows in tables(PAGE) if rows[0][0] == "FD-fashion"]
    source = table(ROOT / "genzoo" / "evaluate" / "README.md", "FD-fashion")
    values = [float(row[0]) for row in rows]
    assert values == sorted(values) and "test images" in rows[0][1] and rows[-1][1] == "noise"
    assert [row[0] for row in rows] == [row[0] for row in source]
