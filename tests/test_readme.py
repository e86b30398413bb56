"""The README is correct: CI runs its commands, and its links, configs, modes and keys exist."""

import re
from pathlib import Path

from genzoo import check, config
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
    known = {}
    for file in (ROOT / "configs").glob("*.py"):
        known |= check.documented(check.check(config.load(f"{file}:smoke")))
    for key in set(re.findall(r"--config\.([a-z_.]+)=", README)) - {"section.key"}:
        parts = key.split(".")
        # The user chooses the names of conditions and averages.
        named = ".".join([*parts[:-2], "NAME", parts[-1]])
        section = ".".join(parts[:-1])
        free = known.get(section, {}).get("type") == "section" and not any(
            other.startswith(f"{section}.NAME.") for other in known
        )
        assert key in known or named in known or free, key
