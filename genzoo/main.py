"""The command line: `python -m genzoo.main --config=FILE[:variant] --workdir=DIR --mode=MODE`.

Any key of the config can be set by `--config.section.key=VALUE`. Exit code 0 only if the work was
done; 2 for a mistake of the user's, said in a sentence or two on standard error; 75 after a SIGTERM
that was answered by a checkpoint.
"""

import argparse
import errno
import json
import logging
import signal
import sys
from pathlib import Path

from genzoo.core.errors import Interrupted, UserError

_MODES = {
    "train": "trains, or goes on with what the workdir holds (default)",
    "eval": "scores the model into eval.json",
    "sample": "draws images into samples/",
    "reconstruct": "encodes and decodes test images, for families that can",
    "interpolate": "draws what lies between two images, for families that encode and decode",
    "encode": "writes the embeddings of a split or a folder, for families that encode",
    "retrieve": "finds the nearest training images of others, for families that encode",
    "latents": "draws what units, planes and codes stand for, for families that decode them",
    "probe": "measures how well embeddings tell the classes apart, for families that encode",
    "describe": "prints parameters and operations as JSON; makes nothing",
    "bench": "times training step and sampler on this machine, as JSON",
    "doctor": "prints what this machine offers, as JSON",
}
_SURROUNDINGS = (  # faults of the machine, not of the program
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
)  # fmt: skip
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
    from genzoo import build, check, config, first_stage
    from genzoo.workdir import Workdir

    changes = config.parse_overrides(overrides)
    stored = Workdir(arguments.workdir).config() if arguments.workdir else None
    if arguments.config:
        raw = config.load(arguments.config)
    elif stored is not None:
        raw = stored
    else:
        raise UserError("--config is missing: give a file of configs/, FILE.py[:variant].")
    checked = check.check(config.override(raw, changes))
    if stored and not checked.data.num_classes and stored["data"]["num_classes"]:
        # Counted when the run began; the data need not be here any more.
        known = {**checked.data, "num_classes": stored["data"]["num_classes"]}
        checked = config.freeze(checked.to_dict() | {"data": known})
    begun = stored if stored and Workdir(arguments.workdir).begun else None
    return first_stage.resolve(build.settled(checked), begun)


def _work(arguments: argparse.Namespace, overrides: list[str]) -> dict:
    # Imported here, so that --help and a wrong flag are answered at once.
    from genzoo.modes import (
        cost,
        doctor,
        encode,
        evaluate,
        interpolate,
        latents,
        probe,
        reconstruct,
        retrieve,
        sample,
        train,
    )

    if arguments.mode == "doctor":
        if overrides:
            raise UserError(f"--mode=doctor takes no {overrides[0]}: only --workdir.")
        return doctor.examine(arguments.workdir)
    if arguments.mode not in _WITHOUT_WORKDIR and arguments.workdir is None:
        raise UserError(f"--mode={arguments.mode} needs --workdir=DIR, the folder of the run.")
    config = _config(arguments, overrides)
    if arguments.mode in _WITHOUT_WORKDIR:
        return {"describe": cost.describe, "bench": cost.bench}[arguments.mode](config)
    modes = {
        "train": train.train,
        "eval": evaluate.evaluate,
        "sample": sample.sample,
        "reconstruct": reconstruct.reconstruct,
        "interpolate": interpolate.interpolate,
        "encode": encode.encode,
        "retrieve": retrieve.retrieve,
        "latents": latents.latents,
        "probe": probe.probe,
    }
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
    except KeyboardInterrupt:
        print("genzoo: Stopped by Ctrl-C. What had been saved is kept.", file=sys.stderr)
        return 130
    except Interrupted as error:
        print(f"genzoo: {error}", file=sys.stderr)
        return 75 if error.signal == signal.SIGTERM else 130
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise
        place = error.filename or arguments.workdir
        print(f"genzoo: {place}: {error.strerror}. Make room or give another folder, and start "
              "again: a run goes on from its last checkpoint.", file=sys.stderr)  # fmt: skip
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
