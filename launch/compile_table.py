"""Makes a table of what every full-size config needs on every kind of TPU slice, without the TPUs.

    python launch/compile_table.py --write

Compiles the training step of each config for each topology with `--mode=compile`, one at a time and
at low priority, in about a minute each. Prints a Markdown table and, with --write, puts it into
launch/README.md. Reports are cached, so an interrupted run continues where it stopped. Needs the
extra `tpu-compile`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"
README = HERE / "README.md"
BEGIN, END = "<!-- compile table -->", "<!-- end of compile table -->"
TOPOLOGIES = ("v5e-1", "v5e-16", "v5e-256", "v5p-64", "v6e-16")
_SMALL = ("toy", "fashion")  # parts of the names of configs for a laptop


def full_size() -> list[str]:
    """The names of the configs that are not for a laptop."""
    names = sorted(path.stem for path in CONFIGS.glob("*.py"))
    return [name for name in names if not any(word in name for word in _SMALL)]


def enough(batch: int, devices: int) -> int:
    """The smallest multiple of the number of devices that is at least the batch size."""
    return -(-batch // devices) * devices


def compiled(name: str, topology: str, level: str) -> dict:
    """The report of `--mode=compile` on a config's training step, or {"error": its message}."""
    from genzoo import config
    from genzoo.runtime.topology import named

    raw, devices = config.load(str(CONFIGS / f"{name}.py")), named(topology).count
    train, score = raw["train"], raw.get("eval", {})
    parts = train.get("accumulate", 1)
    sizes = {
        "train": enough(train["batch_size"], devices * parts),
        "eval": enough(score.get("batch_size", 128), devices),
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable, "-m", "genzoo.main", "--mode=compile",
                f"--config={CONFIGS / name}.py", f"--config.compile.topology={topology}",
                "--config.compile.program=train", f"--config.compile.level={level}",
                *(f"--config.{section}.batch_size={size}" for section, size in sizes.items()),
                *_first_stages(raw.get("frozen", {}), Path(folder)),
            ],
            capture_output=True, text=True, check=False, cwd=HERE.parent,
        )  # fmt: skip
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    report = json.loads(done.stdout)
    return {**report, "given_batch": train["batch_size"]}


def _first_stages(stages: dict, folder: Path) -> list[str]:
    """Flags that name runs of the frozen models of a config. Each run is only the config.json of
    the config that its workdir is named after, since nothing but shapes is needed."""
    from genzoo import check, config

    flags = []
    for name, stage in stages.items():
        source, place = CONFIGS / f"{Path(stage['workdir']).name}.py", folder / name
        if source.exists():
            place.mkdir()
            checked = check.check(config.load(str(source)), devices=1)
            (place / "config.json").write_text(json.dumps(checked.to_dict()))
            flags.append(f"--config.frozen.{name}.workdir={place}")
    return flags


def cell(report: dict) -> str:
    """A report as the text of a Markdown cell."""
    if "error" in report:
        return "not compiled"
    train = report["programs"]["train"]
    if "skipped" in train:
        return "no steps"
    held = train["bytes_per_chip"]["total"]
    size = f"{held / 1e9:.2f} GB" if held else "too much"
    batch = train["batch_size"]
    other = f"; batch {batch}" if batch != report["given_batch"] else ""
    if not train["fits"]:
        return f"**no**: {size}{other}; {_remedy(train.get('suggestion'))}"
    work = f"{_short(train['flops_per_chip'] / 1e9)} GFLOP"
    return f"fits: {size}, {work}, {_collectives(train['collectives'])}{other}"


def _collectives(collectives: dict | None) -> str:
    if collectives is None:
        return "collectives unknown"
    listed = (
        f"{total['count']:g} {kind} of {_short(total['bytes'] / 1e6)} MB"
        for kind, total in collectives.items()
    )
    return ", ".join(listed) or "no collectives"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _remedy(suggestion: dict | str | None) -> str:
    if not isinstance(suggestion, dict):
        return suggestion or "nothing was tried"
    changes = {key: value for key, value in suggestion.items() if "." in key}
    total = suggestion["total_bytes_per_chip"] / 1e9
    settings = ", ".join(f"{key} = {value}" for key, value in changes.items())
    return f"fits with {settings}: {total:.2f} GB"


def table(reports: dict[str, dict[str, dict]], level: str) -> str:
    """The Markdown table of reports by config and topology."""
    columns = list(next(iter(reports.values())))
    flat = [report for row in reports.values() for report in row.values()]
    versions = next((report["versions"] for report in flat if "versions" in report), {})
    made_by = ", ".join(f"{package} {number}" for package, number in versions.items())
    lines = [
        f"Compiled at level {level} by {made_by}; nothing was run. Per chip: total memory (data "
        "set, state, scratch and program; 1 GB = 10^9 bytes), operations of one training step, and "
        "its collectives.",
        "",
        f"| config (batch) | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    notes = []
    for name, row in reports.items():
        batch = next((report["given_batch"] for report in row.values() if "error" not in report), 0)
        cells = " | ".join(cell(report) for report in row.values())
        lines.append(f"| {name}{f' ({batch})' if batch else ''} | {cells} |")
        errors = {report["error"] for report in row.values() if "error" in report}
        notes += [f"* {name}: {error.removeprefix('genzoo: ')}" for error in sorted(errors)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def write(text: str, path: Path) -> None:
    """Puts the text between the markers in a file, or at its end if there are none."""
    whole = path.read_text() if path.exists() else ""
    marked = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in whole and END in whole:
        before, after = whole.split(BEGIN, 1)[0], whole.split(END, 1)[1]
        path.write_text(before + marked + after)
    else:
        path.write_text(f"{whole.rstrip()}\n\n{marked}\n".lstrip())


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commas = "names, separated by commas"
    parser.add_argument("--configs", default=",".join(full_size()), help=commas)
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES), help=commas)
    parser.add_argument("--level", default="O0", help="optimisation level (%(default)s)")
    parser.add_argument("--results", type=Path, help="a JSON file for the reports; reports already "
                        "in it are reused")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="put the table into launch/README.md")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Makes the table; returns the exit code, 1 if a config could not be compiled."""
    arguments = _parsed(argv)
    from genzoo.core.errors import UserError
    from genzoo.runtime.topology import named

    try:
        for topology in arguments.topologies.split(","):
            named(topology)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    os.nice(10)
    kept: dict = {}
    if arguments.results and arguments.results.exists():
        kept = json.loads(arguments.results.read_text())
    reports: dict[str, dict[str, dict]] = {}
    for name in arguments.configs.split(","):
        for topology in arguments.topologies.split(","):
            key = f"{name} {topology} {arguments.level}"
            if "versions" not in kept.get(key, {}):
                kept[key] = compiled(name, topology, arguments.level)
                if arguments.results:
                    arguments.results.write_text(json.dumps(kept, indent=1))
            reports.setdefault(name, {})[topology] = kept[key]
            outcome = kept[key].get("error") or cell(kept[key])
            print(f"{name} {topology}: {outcome}", file=sys.stderr, flush=True)
    text = table(reports, arguments.level)
    print(text)
    if arguments.write:
        write(text, README)
    return int(any("error" in report for row in reports.values() for report in row.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
