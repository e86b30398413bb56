"""--mode=list shows what the docstring of every config says of it and its variants."""

import json
import re
from pathlib import Path

import pytest
from test_config import CONFIGS, EVERY

from genzoo.core.errors import UserError
from genzoo.modes import catalogue

TEXT = '''"""A model of things: what it is.

    python -m genzoo.main --config=mine.py

More of it. Published: a FID of
3 (50,000 samples). Cost: two days.

Not of the cost.

Variants:
    :laptop  Cost: a minute.
             Result: it works: well.
    :smoke   what the tests run.
Without a variant it is large.
Result: none yet.
"""
'''


def test_labels_and_variants_are_read_from_the_docstring(tmp_path):
    (tmp_path / "mine.py").write_text(TEXT)
    whole, laptop, smoke = catalogue.entries(tmp_path / "mine.py")
    assert whole == {
        "config": str(tmp_path / "mine.py"),
        "about": "A model of things: what it is.",
        "published": "a FID of 3 (50,000 samples)",
        "cost": "two days",
        "result": "none yet",
    }
    name = f"{tmp_path}/mine.py"
    assert laptop == {
        "config": f"{name}:laptop", "about": "", "cost": "a minute", "result": "it works: well",
    }  # fmt: skip
    assert smoke == {"config": f"{name}:smoke", "about": "what the tests run"}
    shown = catalogue.table([whole, laptop, smoke])
    assert "    :laptop         cost: a minute\n                    result: it works: well" in shown


def test_a_folder_without_configs_is_reported(tmp_path):
    with pytest.raises(UserError, match="There are no configs in"):
        catalogue.catalogue(tmp_path)


def test_every_config_has_a_line_and_describes_exactly_its_variants():
    listed = [entry for file in CONFIGS for entry in catalogue.entries(file)]
    names = [f"configs/{Path(e['config']).name}" for e in listed]
    assert {name if ":" in name else f"{name}:" for name in names} == set(EVERY)
    for entry in listed:
        assert entry["about"] or entry.get("result"), entry
        if ":" not in entry["config"]:
            assert entry["about"].endswith("."), entry
        if entry["config"].endswith("laptop"):
            assert re.search(r"\b(second|minute|hour)s?\b", entry.get("cost", "")), entry


def test_the_command_prints_json_and_a_table(genzoo):
    done = genzoo("--mode=list")
    assert {"config": "configs/ddpm_fashion.py:laptop", "about": ""}.items() <= next(
        e for e in json.loads(done.stdout)["configs"] if e["config"].endswith("fashion.py:laptop")
        and "ddpm" in e["config"]
    ).items()  # fmt: skip
    assert "cost: five to nine minutes on 2 CPU cores" in done.stderr
    assert "takes no" in genzoo("--mode=list", "--config.seed=1", check=2).stderr
