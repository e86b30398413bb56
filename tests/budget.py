"""What tests cost, in seconds of processor time: the clock on the wall tells what else the machine
does. The slowest twenty and the dearest files are printed at the end of every run.

A test should take 8 s at most without its fixtures, compiling what it needs; the summary marks
those that take more. One that takes fifteen times as much and is not listed here fails: processor
time too varies with the machine, and a test that starts whole runs with nothing compiled yet takes
a minute. GENZOO_TEST_SECONDS moves that bound, 0 removes it.
"""

import os
import resource
import time
from collections import Counter

import pytest

BUDGET = 8.0
BOUND = float(os.environ.get("GENZOO_TEST_SECONDS", 15 * BUDGET))

# File::function of the tests that may take any time: they start several runs.
LISTED = frozenset(
    {
        "test_processes.py::test_elastic_training_scoring_and_sampling",
        "test_processes.py::test_two_processes_train_on_a_frozen_model",
    }
)


def _spent() -> float:
    """Processor time of this process, all its threads, and of those it started that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _name(nodeid: str) -> str:
    """File::function of a test, without its parameters."""
    path, _, rest = nodeid.partition("::")
    return f"{path.rsplit('/', 1)[-1]}::{rest.partition('[')[0]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    before = _spent()
    result = yield
    item.user_properties.append(("setup_seconds", _spent() - before))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = _spent()
    result = yield
    seconds = _spent() - before
    item.user_properties.append(("seconds", seconds))
    if 0 < BOUND < seconds and _name(item.nodeid) not in LISTED and "slow" not in item.keywords:
        pytest.fail(
            f"This test took {seconds:.0f} s of processor time, where a test should take "
            f"{BUDGET:.0f} s: make it smaller, mark it slow, or list it in tests/budget.py."
        )
    return result


def pytest_terminal_summary(terminalreporter):
    """Where the time went."""
    each, files = {}, Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                spent = dict(report.user_properties)
                each[report.nodeid] = spent.get("seconds", 0.0)
                files[report.nodeid.partition("::")[0]] += sum(spent.values())
    if not each:
        return
    write = terminalreporter.write_line
    write(f"{sum(files.values()):.0f} s of processor time. By file:")
    for name, seconds in files.most_common(20):
        write(f"{seconds:7.1f} s  {name}")
    write("The slowest tests, without their fixtures (* above the budget and not listed):")
    for nodeid, seconds in sorted(each.items(), key=lambda pair: -pair[1])[:20]:
        mark = "*" if seconds > BUDGET and _name(nodeid) not in LISTED else " "
        write(f"{seconds:7.1f} s {mark}{nodeid}")
