"""The command line: `python -m genzoo.main --config=FILE[:variant] --workdir=DIR --mode=MODE`.

Any key of the config can be set by `--config.section.key=VALUE`. Exit code 0 only if the work was
done; 2 for a mistake of the user's, said in a sentence or two on standard error; 75 after a SIGTERM
that was answered by a checkpoint.
"""

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

from genzoo.core.errors import UserError

_MODES = {
    "train": "trains, or goes on with what the workdir holds (default)",
    "eval": "scores the model into eval.json",
    "sample": "draws images into samples/",
    "describe": "prints parameters and operations as JSON; makes nothing",
    "bench": "times training step and sampler on this machine, as JSON",
    "doctor": "prints what this machine offers, as JSON",
}
_WITHOUT_WORKDIR = ("describe", "bench", "doctor")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m genzoo.main",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="a file of configs/, FILE.py or FILE.py:variant; for a "
                        "workdir that holds a run it may be left out")  # fmt: skip
    parser.add_argument("--workdir", type=Path, help="the folder of the run")
    parser.add_argument("--mode", default="train", choices=_MODES,
                        help="; ".join(f"{k}: {v}" for k, v in _MODES.items()))  # fmt: skip
    return parser


def _config(arguments: argparse.Namespace, overrides: list[str]):
    from genzoo import check, config
    from genzoo.workdir import Workdir

    strange = [a for a in overrides if a.startswith("-") and not a.startswith("--config.")]
    if strange:
        raise UserError(
            f"{strange[0]} is not a known flag; a key of the config is set by "
            "--config.section.key=VALUE."
        )
    if arguments.config:
        raw = config.load(arguments.config)
    else:
        raw = Workdir(arguments.workdir).config() if arguments.workdir else None
        if raw is None:
            raise UserError("--config is missing: give a file of configs/, FILE.py[:variant].")
    return check.check(config.override(raw, config.parse_overrides(overrides)))


def _work(arguments: argparse.Namespace, overrides: list[str]) -> dict:
    # Imported here, so that --help and a wrong flag are answered at once.
    from genzoo.modes import cost, doctor, evaluate, sample, train

    if arguments.mode == "doctor":
        return doctor.examine(arguments.workdir)
    if arguments.mode not in _WITHOUT_WORKDIR and arguments.workdir is None:
        raise UserError(f"--mode={arguments.mode} needs --workdir=DIR, the folder of the run.")
    config = _config(arguments, overrides)
    if arguments.mode in _WITHOUT_WORKDIR:
        return {"describe": cost.describe, "bench": cost.bench}[arguments.mode](config)
    modes = {"train": train.train, "eval": evaluate.evaluate, "sample": sample.sample}
    return modes[arguments.mode](config, arguments.workdir)


def main(argv: list[str]) -> int:
    """Runs one mode; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("genzoo").setLevel(logging.INFO)
    arguments, overrides = _parser().parse_known_args(argv)
    try:
        result = _work(arguments, overrides)
    except UserError as error:
        for problem in error.problems:
            print(f"genzoo: {problem}", file=sys.stderr)
        return 2
    except Exception as error:
        from genzoo.train.loop import Interrupted

        if not isinstance(error, Interrupted):
            raise
        print(f"genzoo: {error}", file=sys.stderr)
        return 75 if error.signal == signal.SIGTERM else 130
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
