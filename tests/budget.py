"""The cost of tests in seconds of processor time, since wall-clock time depends on what else the
machine does. The twenty slowest tests and files are printed at the end of every run.

A test should take at most 8 s without its fixtures but with compilation; the summary marks those
that take more. A test that takes fifteen times as much and is not listed here fails. The factor
leaves room because processor time also varies with the machine, and a test that starts whole runs
without compiled programs takes a minute. GENZOO_TEST_SECONDS sets that bound; 0 removes it.
"""

import os
import resource
import time
from collections import Counter

import pytest

BUDGET = 8.0
BOUND = float(os.environ.get("GENZOO_TEST_SECONDS", 15 * BUDGET))

# File::function of tests without a limit, because they start several runs.
LISTED = frozenset({"test_processes.py::test_a_run_of_two_killed_processes_is_finished_by_one"})


_SPENT = ("setup_seconds", "seconds")  # properties of a test


def _spent() -> float:
    """Processor time of this process with all its threads, and of its child processes that ended.
    """
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
            f"This test took {seconds:.0f} s of processor time, but a test should take at most "
            f"{BUDGET:.0f} s: make it smaller, mark it slow, or list it in tests/budget.py."
        )
    return result


def pytest_terminal_summary(terminalreporter):
    """Prints the slowest files and tests."""
    each, files = {}, Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                spent = {k: v for k, v in report.user_properties if k in _SPENT}
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
