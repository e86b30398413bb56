"""What a run cost and where it ran, from the records of its starts and the lines of its metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from genzoo.evaluate.report import words
from genzoo.evaluate.report.charts import TIMES
from genzoo.evaluate.report.folder import Folder, number, section
from genzoo.evaluate.report.parts import Fact, Facts, Section, Share, Shares

SPENT: Mapping[str, str] = {
    "steps": "training steps",
    "data": "waiting for data",
    "compile": "compilation",
    "start": "start",
    "evaluation": "evaluation",
    "pictures": "pictures",
    "saving": "saving",
}
"""Kind of work -> its name, in the order of the bar."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of all starts of a run, each NaN if unknown. seconds: of all of them; flops: of one
    step; rate: steps per second; peak: operations per second that the devices could do."""

    seconds: float
    spent: Mapping[str, float]
    flops: float
    rate: float
    peak: float
    parameters: float


def of(folder: Folder) -> Cost:
    """The cost of a run, as far as it is known."""
    spent: dict[str, float] = {}
    for start in folder.starts:
        for name, seconds in section(start, "seconds").items():
            if (known := number(seconds)) >= 0:
                spent[str(name)] = spent.get(str(name), 0.0) + known
    last = folder.starts[-1] if folder.starts else {}
    stepping = _stepping(folder)
    covered = folder.lines[-1]["step"] if folder.lines else 0
    return Cost(
        # A run that was killed had no time to note its last minute.
        seconds=max(sum(spent.values()), stepping) or math.nan,
        spent=spent,
        flops=number(last.get("flops_per_step")),
        rate=covered / stepping if stepping else math.nan,
        peak=number(last.get("peak_flops")),
        parameters=number(last.get("parameters")),
    )


def _stepping(folder: Folder) -> float:
    """The seconds of the steps alone, from the rates in the metrics."""
    total, before = 0.0, 0
    for line in folder.lines:
        rate = number(line.get("steps_per_second"))
        if rate > 0:
            total += (line["step"] - before) / rate
        before = line["step"]
    return total


def device(folder: Folder) -> str:
    """The devices of the newest start, "2 x NVIDIA H100"; "" if unknown."""
    last = folder.starts[-1] if folder.starts else {}
    kind, count = last.get("device"), last.get("devices")
    if not isinstance(kind, str):
        platform = section(section(folder.scores, "Scores"), "protocol").get("platform")
        return str(platform) if isinstance(platform, str) else ""
    return f"{count}{TIMES}{kind}" if isinstance(count, int) and count > 1 else kind


def cost_section(folder: Folder, cost: Cost) -> Section:
    """Duration, operations, share of peak, and where the time went."""
    batch = number(section(folder.config, "train").get("batch_size"))
    facts = []
    if math.isfinite(cost.seconds):
        note = "" if cost.spent else "the steps alone; this run kept no record of the rest"
        facts.append(Fact("Wall time", words.duration(cost.seconds), note))
    if math.isfinite(cost.rate):
        each = f"{words.brief(cost.rate * batch)} examples/s" if math.isfinite(batch) else ""
        facts.append(Fact("Rate", f"{words.brief(cost.rate)} steps/s", each))
    if math.isfinite(cost.flops):
        facts.append(Fact("Operations of a step", words.scaled(cost.flops, "FLOP")))
        facts.append(Fact("Operations in all", words.scaled(cost.flops * folder.step, "FLOP")))
        achieved = cost.flops * cost.rate
        if math.isfinite(achieved):
            facts.append(Fact("Achieved", words.scaled(achieved, "FLOP/s"), "within the steps"))
        if math.isfinite(achieved) and cost.peak > 0:
            peak = f"of {words.scaled(cost.peak, 'FLOP/s')} (bfloat16, data sheet)"
            facts.append(Fact("Share of peak", f"{100 * achieved / cost.peak:.1f} %", peak))
    memory = [number(start.get("peak_memory_bytes")) for start in folder.starts]
    if known := [m for m in memory if m > 0]:
        facts.append(Fact("Peak memory", words.scaled(max(known), "B")))
    if len(folder.starts) > 1:
        facts.append(Fact("Starts", str(len(folder.starts)), "the times above are of all of them"))
    blocks: list = [Facts(facts)] if facts else []
    if sum(cost.spent.values()) > 0:
        blocks.append(_bar(cost.spent))
    return Section("cost", "Cost", blocks)


def _bar(spent: Mapping[str, float]) -> Shares:
    whole, left, shares = sum(spent.values()), 0.0, []
    order = [*SPENT, *sorted(spent.keys() - SPENT.keys())]
    ranks = {**{name: i for i, name in enumerate(SPENT)}, "saving": 7}  # far from its neighbours
    for name in order:
        if seconds := spent.get(name, 0.0):
            width = 100 * seconds / whole
            value = f"{words.duration(seconds)}, {width:.1f} %"
            shares.append(Share(SPENT.get(name, name), value, left, width, ranks.get(name, 6)))
            left += width
    return Shares("Where the time went", shares)


def environment(folder: Folder) -> list[Fact]:
    """The machine and the versions of the newest start."""
    if not folder.starts:
        return []
    last = folder.starts[-1]
    facts = [Fact("Started", words.moment(folder.starts[0].get("started")))]
    if len(folder.starts) > 1:
        facts.append(Fact("Last started", words.moment(last.get("started"))))
    if where := device(folder):
        count = last.get("processes")
        several = isinstance(count, int) and count > 1
        facts.append(Fact("Device", where, f"{count} processes" if several else ""))
    for name, title in ("cpu", "Processor"), ("cores", "Cores"), ("system", "System"):
        if last.get(name):
            facts.append(Fact(title, words.shown(last[name])))
    versions = [f"{name} {version}" for name, version in section(last, "versions").items()]
    if versions:
        facts.append(Fact("Versions", ", ".join(versions)))
    return facts
