"""A pytest plugin that appends each test's outcome to $DEVICE_OUTCOMES as a line of JSON, so that
an interrupted run leaves its results so far."""

import json
import os


def pytest_runtest_logreport(report):
    """Writes one outcome per test: of its call, or of a set-up or tear-down that failed."""
    if report.when != "call" and report.passed:
        return
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}
    if report.failed:
        line["message"] = str(report.longrepr)[-600:]
    with open(os.environ["DEVICE_OUTCOMES"], "a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_configure(config):
    """With several processes only the main one writes, which receives all outcomes."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.unregister(name="device_outcomes")
