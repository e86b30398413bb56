"""The README keeps its word: its commands are the ones that CI runs, its links and flags exist."""

import re
from pathlib import Path

from genzoo import build, check, config
from genzoo.builders.conditions import ConditionSettings
from genzoo.core.bounds import settings_of
from genzoo.main import _MODES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_command():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    (command,) = [b.strip() for b in blocks if "pytest" in b]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_config_and_mode_named_exists():
    for name in re.findall(r"--config=(configs/\S+?\.py(?::\w+)?)", README):
        assert config.load(name)
    for mode in _MODES:
        assert f"`{mode}`" in README, mode


def test_every_key_named_exists():
    known = check.check(config.load("configs/ddpm_cifar.py:smoke"))
    own = [row.own_keys for row in build.FAMILIES.values()]
    for key in re.findall(r"--config\.([a-z_.]+)=", README):
        if key in ("section.key", "frozen.tokenizer.workdir"):
            continue
        section, name, *more = key.split(".")
        if section == "conditions":  # conditions.NAME.key
            assert more[0] in settings_of(ConditionSettings), key
        else:
            assert name in known[section] or any(name in o.get(section, ()) for o in own), key
            assert not more or name in ("conditions", "negative"), key
