"""The command line: `python -m genzoo.main --config=FILE[:variant] --workdir=DIR --mode=MODE`.

Any key of the config can be set with `--config.section.key=VALUE`. The exit code is 0 only if the
work was done, 2 after a mistake of the user's, which standard error explains in one or two
sentences, and 75 after a SIGTERM.
"""

import argparse
import atexit
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.core import strict_json
from genzoo.core.errors import Interrupted, UserError, ending, explained
from genzoo.runtime.asides import kept_aside
from genzoo.runtime.signals import Signals

if TYPE_CHECKING:
    from genzoo.runtime.stopping import Stop
    from genzoo.train.starts import Origin

_MODES = {
    "train": "trains, or resumes the run in the workdir (default)",
    "eval": "scores the model and writes eval.json",
    "sample": "draws samples into samples/",
    "reconstruct": "encodes and decodes test images, for families that can",
    "interpolate": "interpolates between two images, for families that encode and decode",
    "encode": "writes the embeddings of a split or a folder, for families that encode",
    "retrieve": "finds the training images nearest to given ones, for families that encode",
    "latents": "draws what units, planes and codes mean, for families that decode them",
    "probe": "measures how well a linear probe of embeddings predicts the classes, for families "
    "that encode",
    "rerank": "draws several samples for each text and orders them by how well they match it in "
    "the run tools.ranker, such as CLIP",
    "compare": "prints the distances of several runs side by side, from their eval.json",
    "stats": "writes the moments of the data's features, a reference for distances",
    "describe": "prints parameters, operations and every key of the config as JSON; writes nothing",
    "report": "writes report.html: one page on a run, or on several side by side (--workdirs)",
    "gallery": "writes a folder of pages on many runs (--workdirs): an index with a card for each, "
    "and their reports; into gallery/, or the folder that --workdir names",
    "list": "prints every config and variant with its cost and result, as a table and as JSON",
    "bench": "times the training step and the sampler on this machine; prints JSON",
    "compile": "compiles for TPUs, GPUs or CPUs that need not be present; prints the cost as JSON",
    "doctor": "prints what this machine offers, as JSON",
}
_WITHOUT_WORKDIR = ("compare", "describe", "list", "bench", "compile", "doctor")
_OF_SEVERAL = ("report", "compare", "gallery")
_FOR_OTHERS = ("describe", "compile")  # these may speak for other machines than this one


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m genzoo.main",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="NAME or NAME:variant of a file in configs/, or the path "
                        "of another file; not needed if the workdir holds a run")  # fmt: skip
    parser.add_argument("--workdir", type=Path, help="the folder of the run")
    parser.add_argument("--workdirs", type=_folders, default=[], metavar="A,B,C",
                        help="the folders of several runs, for report, compare and "
                        "gallery")  # fmt: skip
    parser.add_argument("--mode", default="train", choices=_MODES,
                        help="; ".join(f"{k}: {v}" for k, v in _MODES.items()))  # fmt: skip
    parser.add_argument("--no_compile_cache", action="store_true",
                        help="neither read nor write the cache of compiled programs")  # fmt: skip
    group = parser.add_argument_group(
        "several processes", "detected without flags under SLURM, Open MPI and on TPU slices; "
        "launch/ has a launcher for each")  # fmt: skip
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--processes", type=int, metavar="N", help="the number of processes")
    group.add_argument("--process", type=int, metavar="I", help="the number of this one, from 0")
    group.add_argument("--start_timeout", type=int, default=300, metavar="SECONDS",
                       help="how long to wait for the others (%(default)s)")  # fmt: skip
    group.add_argument("--heartbeat_timeout", type=int, default=100, metavar="SECONDS",
                       help="how long a process may be silent before it counts as lost "
                       "(%(default)s)")  # fmt: skip
    return parser


def _folders(text: str) -> list[Path]:
    return [Path(part) for part in text.split(",") if part]


def _origin(arguments: argparse.Namespace, overrides: list[str]) -> "Origin":
    """Where a training comes from: its command, its named config and what differs from that."""
    from genzoo import config
    from genzoo.check import fill
    from genzoo.train.starts import Origin

    command = shlex.join(["python", "-m", "genzoo.main", *arguments.given])
    if not arguments.config:
        return Origin(command=command)
    raw, changes = config.load(arguments.config), config.parse_overrides(overrides)
    try:
        changed = config.differences(fill(raw), fill(config.override(raw, changes)))
    except UserError:  # such as a config that is whole only with its changes
        changed = {key: (None, value) for key, value in changes.items()}
    return Origin(command=command, config=arguments.config, changed=changed)


def _config(arguments: argparse.Namespace, overrides: list[str]):
    from genzoo import config, needs
    from genzoo.modes import compile
    from genzoo.resolve import resolved
    from genzoo.workdir import Workdir

    changes = config.parse_overrides(overrides)
    if arguments.config:
        raw = config.load(arguments.config)
    elif arguments.workdir and arguments.mode != "train":
        remedy = "give the workdir of a run, or train one with --config"
        raw = Workdir(arguments.workdir).stored(remedy)
    else:
        raw = Workdir(arguments.workdir).config() if arguments.workdir else None
    if raw is None:
        raise UserError("--config is missing: give the name of a file in configs/, NAME[:variant].")
    raw = config.override(raw, changes)
    # Must come before anything looks for devices, because this mode uses others.
    devices = compile.prepare(raw) if arguments.mode == "compile" else None
    checked = resolved(raw, arguments.workdir, devices)
    if arguments.mode not in _FOR_OTHERS:
        needs.require(checked, arguments.mode)
    return checked


def _work(arguments: argparse.Namespace, overrides: list[str], stop: "Stop") -> dict:
    # Imported here, so that --help and wrong flags are answered at once.
    from genzoo.modes import (
        catalogue,
        compare,
        compile,
        cost,
        doctor,
        encode_set,
        evaluate,
        gallery,
        interpolate,
        latents,
        probe,
        reconstruct,
        report,
        rerank,
        retrieve,
        sample,
        stats,
        train,
    )
    from genzoo.runtime.agreement import agreed

    if arguments.mode == "doctor":
        if overrides:
            raise UserError(f"--mode=doctor takes no {overrides[0]}, only --workdir: leave it out.")
        return doctor.examine(arguments.workdir)
    if arguments.mode == "list":
        if overrides:
            raise UserError(f"--mode=list takes no {overrides[0]}: leave it out.")
        return catalogue.catalogue()
    if arguments.workdirs and arguments.mode not in _OF_SEVERAL:
        raise UserError(f"--mode={arguments.mode} takes one --workdir: leave out --workdirs.")
    if arguments.mode in ("compare", "gallery") or (
        arguments.mode == "report" and (arguments.workdir or arguments.workdirs)
    ):
        if overrides:
            raise UserError(f"--mode={arguments.mode} takes no {overrides[0]}: leave it out.")
        if arguments.mode == "compare":
            return compare.compare(arguments.workdirs)
        if arguments.mode == "gallery":
            return gallery.gallery(arguments.workdirs, arguments.workdir)
        return report.report(arguments.workdir, arguments.workdirs)
    if arguments.mode not in _WITHOUT_WORKDIR and arguments.workdir is None:
        raise UserError(f"--mode={arguments.mode} needs --workdir=DIR, the folder of the run.")
    config = agreed(lambda: _config(arguments, overrides))
    if arguments.mode in _WITHOUT_WORKDIR:
        without = {"describe": cost.describe, "bench": cost.bench, "compile": compile.compile_ahead}
        return without[arguments.mode](config)
    if arguments.mode == "stats":
        return stats.stats(config, arguments.workdir)
    modes = {
        "eval": evaluate.evaluate,
        "sample": sample.sample,
        "reconstruct": reconstruct.reconstruct,
        "interpolate": interpolate.interpolate,
        "encode": encode_set.encode,
        "retrieve": retrieve.retrieve,
        "latents": latents.latents,
        "probe": probe.probe,
        "rerank": rerank.rerank,
    }
    if arguments.mode == "train":
        return train.train(config, arguments.workdir, stop, _origin(arguments, overrides))
    return modes[arguments.mode](config, arguments.workdir, stop)


def main(argv: list[str], signals: Signals | None = None) -> int:
    """Runs one mode; returns the exit code. signals: those that stop it, by default none."""
    parser = _parser()
    arguments, overrides = parser.parse_known_args(argv)
    arguments.given = argv
    if problem := _unknown_flag(parser, overrides):
        print(f"genzoo: {problem}", file=sys.stderr)
        return 2
    with kept_aside() as asides:
        logging.getLogger("genzoo").setLevel(logging.INFO)
        # Importing JAX takes a second; --help and wrong flags are answered before.
        from genzoo.data.fetch import cache_dir
        from genzoo.runtime.processes import Group
        from genzoo.runtime.program_cache import keep_programs
        from genzoo.runtime.stopping import Stop

        stop = Stop(signals)
        group = Group(stop)
        try:
            group.join(arguments)
            if not arguments.no_compile_cache:
                keep_programs(cache_dir() / "programs")
            result = _work(arguments, overrides, stop)
        except (Exception, Interrupted, KeyboardInterrupt) as error:
            code, message, agreed = ending(error, arguments.workdir)
            if group.speaks or not agreed:
                print(message if explained(error) else asides.text() + message, file=sys.stderr)
            return group.leave(code, together=agreed)
        code = _report(result) if group.speaks else 0
        return group.leave(code, together=True)


def _report(result: dict) -> int:
    """Prints the report; returns the exit code."""
    try:
        print(strict_json.dumps(result, indent=2), flush=True)
    except OSError as error:  # a full disk, or a reader that has gone
        print(
            f"genzoo: The work is done, but its report could not be written to standard output "
            f"({error.strerror}).",
            file=sys.stderr,
        )
        return 2
    return 0


def _unknown_flag(parser: argparse.ArgumentParser, overrides: list[str]) -> str:
    """The problem with arguments that are neither flags nor keys of a config; "" if none."""
    from genzoo.config import parse_overrides

    flags = [flag for action in parser._actions for flag in action.option_strings]
    try:
        parse_overrides(overrides, flags)
    except UserError as error:
        return str(error)
    return ""


def _process() -> None:
    """Runs the program as a process of its own, and ends it."""
    signals = Signals()
    atexit.register(signals.leave)  # the first to be registered is the last to be called
    signals.start()  # and never closed, because the end of the process takes time too
    signals.settle(main(sys.argv[1:], signals))
    if signals.number is not None:  # whatever may hang at the end of Python is skipped
        signals.leave()


if __name__ == "__main__":
    _process()
