"""A pytest plugin that writes each test's outcome to $DEVICE_OUTCOMES when it is known, as a line
of JSON, so that a run that is cut off leaves what it had."""

import json
import os


def pytest_runtest_logreport(report):
    """A test has one outcome: of its call, or of a set-up or tear-down that did not pass."""
    if report.when != "call" and report.passed:
        return
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}
    if report.failed:
        line["message"] = str(report.longrepr)[-600:]
    with open(os.environ["DEVICE_OUTCOMES"], "a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_configure(config):
    """Of several processes the first alone writes, which is told all outcomes."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.unregister(name="device_outcomes")
