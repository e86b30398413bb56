"""One small run for all tests of damaged workdirs, and the table of what was tried."""

import shutil
from collections import Counter

import pytest

from genzoo.main import main

QUICK = ("--config.train.picture_count=0", "--config.train.save_every=10")


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A workdir with checkpoints of steps 10 and 20. Only copies of it may be changed."""
    workdir = tmp_path_factory.mktemp("trust") / "run"
    assert main(["--config=configs/toy_mixture.py:smoke", f"--workdir={workdir}", *QUICK]) == 0
    return workdir


@pytest.fixture
def workdir(run, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(run, tmp_path / "run", symlinks=True)


@pytest.fixture
def tried(request):
    """Counts how something ended, for the table at the end: tried("flipped bits", "set aside")."""

    def count(what: str, ended: str, times: int = 1) -> None:
        request.node.user_properties.append(("tried", [what, ended, times]))

    return count


def pytest_terminal_summary(terminalreporter):
    """Prints what was tried and how it ended."""
    table = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == "tried":
                        table[tuple(value[:2])] += value[2]
    if table:
        terminalreporter.write_line(f"{sum(table.values())} damages and inputs were tried:")
    for (what, ended), times in sorted(table.items()):
        terminalreporter.write_line(f"{times:6}  {what}: {ended}")
