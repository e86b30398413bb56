"""The command line: `python -m genzoo.main --config=FILE[:variant] --workdir=DIR --mode=MODE`.

Any key of the config can be set by `--config.section.key=VALUE`. Exit code 0 only if the work was
done; 2 for a mistake of the user's, said in a sentence or two on standard error; 75 after a SIGTERM
that was answered by a checkpoint.
"""

import argparse
import contextlib
import errno
import json
import logging
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.core.errors import Alone, Interrupted, UserError

if TYPE_CHECKING:
    from genzoo.runtime.stopping import Stop

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
    "describe": "prints parameters, operations and every key of the config as JSON; makes nothing",
    "list": "prints every config and variant with its cost and result, as a table and as JSON",
    "bench": "times training step and sampler on this machine, as JSON",
    "compile": "compiles for a TPU, GPUs or CPUs that need not be there; prints the cost as JSON",
    "doctor": "prints what this machine offers, as JSON",
}
_SURROUNDINGS = (  # faults of the machine, not of the program
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
)  # fmt: skip
_WITHOUT_WORKDIR = ("describe", "list", "bench", "compile", "doctor")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m genzoo.main",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="NAME or NAME:variant of a file in configs/, or the path "
                        "of another; not needed for a workdir that holds a run")  # fmt: skip
    parser.add_argument("--workdir", type=Path, help="the folder of the run")
    parser.add_argument("--mode", default="train", choices=_MODES,
                        help="; ".join(f"{k}: {v}" for k, v in _MODES.items()))  # fmt: skip
    parser.add_argument("--no_compile_cache", action="store_true",
                        help="compile anew, and keep nothing of it for the next start")  # fmt: skip
    group = parser.add_argument_group(
        "several processes", "found without flags under SLURM, Open MPI and on TPU slices; launch/ "
        "has a launcher for each")  # fmt: skip
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    group.add_argument("--start_timeout", type=int, default=300, metavar="SECONDS",
                       help="how long to wait for the others (%(default)s)")  # fmt: skip
    group.add_argument("--heartbeat_timeout", type=int, default=100, metavar="SECONDS",
                       help="a process silent for so long is given up (%(default)s)")  # fmt: skip
    return parser


def _config(arguments: argparse.Namespace, overrides: list[str]):
    from genzoo import config
    from genzoo.modes import compile
    from genzoo.resolve import resolved
    from genzoo.workdir import Workdir

    changes = config.parse_overrides(overrides)
    if arguments.config:
        raw = config.load(arguments.config)
    else:
        raw = Workdir(arguments.workdir).config() if arguments.workdir else None
    if raw is None:
        raise UserError("--config is missing: give a file of configs/, NAME[:variant].")
    raw = config.override(raw, changes)
    # Before anything looks for devices, since here they are others.
    devices = compile.prepare(raw) if arguments.mode == "compile" else None
    return resolved(raw, arguments.workdir, devices)


def _work(arguments: argparse.Namespace, overrides: list[str], stop: "Stop") -> dict:
    # Imported here, so that --help and a wrong flag are answered at once.
    from genzoo.modes import (
        catalogue,
        compile,
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
    from genzoo.runtime.agreement import agreed

    if arguments.mode == "doctor":
        if overrides:
            raise UserError(f"--mode=doctor takes no {overrides[0]}: only --workdir.")
        return doctor.examine(arguments.workdir)
    if arguments.mode == "list":
        if overrides:
            raise UserError(f"--mode=list takes no {overrides[0]}.")
        return catalogue.catalogue()
    if arguments.mode not in _WITHOUT_WORKDIR and arguments.workdir is None:
        raise UserError(f"--mode={arguments.mode} needs --workdir=DIR, the folder of the run.")
    config = agreed(lambda: _config(arguments, overrides))
    if arguments.mode in _WITHOUT_WORKDIR:
        without = {"describe": cost.describe, "bench": cost.bench, "compile": compile.compile_ahead}
        return without[arguments.mode](config)
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
    return modes[arguments.mode](config, arguments.workdir, stop)


def main(argv: list[str]) -> int:
    """Runs one mode; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("genzoo").setLevel(logging.INFO)
    parser = _parser()
    arguments, overrides = parser.parse_known_args(argv)
    if problem := _unknown_flag(parser, overrides):
        print(f"genzoo: {problem}", file=sys.stderr)
        return 2
    with _interruptible():
        # JAX takes a second to import: --help and a wrong flag are answered before.
        from genzoo.data.fetch import cache_dir
        from genzoo.runtime.processes import Group
        from genzoo.runtime.program_cache import keep_programs
        from genzoo.runtime.stopping import Stop

        with Stop() as stop:
            group = Group(stop)
            try:
                group.join(arguments)
                if not arguments.no_compile_cache:
                    keep_programs(cache_dir() / "programs")
                result = _work(arguments, overrides, stop)
            except (Exception, Interrupted, KeyboardInterrupt) as error:
                code, words, agreed = _ending(error, arguments.workdir)
                if group.speaks or not agreed:
                    print(words, file=sys.stderr)
                return group.leave(code, together=agreed)
            if group.speaks:
                print(json.dumps(result, indent=2))
            return group.leave(0, together=True)


def _unknown_flag(parser: argparse.ArgumentParser, overrides: list[str]) -> str:
    """What is wrong with arguments that are no flags of the program, "" if nothing is."""
    from genzoo.config import parse_overrides

    flags = [flag for action in parser._actions for flag in action.option_strings]
    try:
        parse_overrides(overrides, flags)
    except UserError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as an exception, before there is anything that must end in order."""

    def stop(number: int, frame):
        raise SystemExit(75)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ending(error: BaseException, workdir: Path | None) -> tuple[int, str, bool]:
    """(exit code, what is said, whether all processes end so) of what the work ended in."""
    if isinstance(error, UserError):
        return 2, "\n".join(f"genzoo: {p}" for p in error.problems), error.agreed
    if isinstance(error, Interrupted):
        return 75 if error.signal == signal.SIGTERM else 130, f"genzoo: {error}", error.agreed
    if isinstance(error, Alone):
        return 1, f"genzoo: {error}", False
    if isinstance(error, KeyboardInterrupt):
        return 130, "genzoo: Stopped by Ctrl-C. What had been saved is kept.", False
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        said = (
            f"genzoo: {error.filename or workdir}: {error.strerror}. Make room or give another "
            "folder, and start again: a run goes on from its last checkpoint."
        )
        return 2, said, False
    return 1, "".join(traceback.format_exception(error)), False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
