"""Metrics as a run of Weights & Biases (`train.wandb`), beside TensorBoard and `metrics.jsonl`.

Its files lie in `wandb/` in the workdir, those that the library would put into the home folder
included. `wandb/run-id` names the run, so that a training that resumes goes on in the same one.
Nothing that fails here ends a training: the first failure is a warning, and the last one too.
"""

import contextlib
import importlib.util
import logging
import math
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from genzoo.core.errors import UserError, cause
from genzoo.core.files import Unreadable, read_bytes, write_atomically
from genzoo.runtime.progress import waiting

MODES = ("off", "offline", "online")
"""The values of train.wandb."""
FOLDER = "wandb"
"""In the workdir."""
_ID = "run-id"
_START, _FINISH = 30.0, 60.0  # seconds to wait for the network at most
_OUTSIDE = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
_STEP = "step"
_log = logging.getLogger("genzoo")


def check(mode: str) -> None:
    """Raises UserError if the library is wanted and missing."""
    if mode != "off" and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"train.wandb = {mode!r} needs the library wandb: pip install 'genzoo[wandb]', or "
            "leave it off."
        )


class WeightsAndBiases:
    """A writer of metrics. workdir: of the run, whose name the run there gets. config: resolved.

    Steps are a metric of their own, against which all others are drawn, because a training that
    goes back to an earlier checkpoint repeats some, which the library's own counter refuses.
    """

    def __init__(self, workdir: Path, mode: str, project: str, config: Mapping):
        self._run, self._before = None, {name: os.environ.get(name) for name in _OUTSIDE}
        self._begin(workdir, mode, project, config)

    def _begin(self, workdir: Path, mode: str, project: str, config: Mapping) -> None:
        try:
            with waiting("Starting Weights & Biases."):
                self._run = self._started(workdir.absolute(), mode, project, config)
        except Exception as error:  # whatever it is, the training must not end by it
            if mode != "online":
                self._gave_up("was not started", error)
                return
            _log.warning(
                "Weights & Biases cannot be reached (%s): this start is kept offline in %s, for a "
                "later `wandb sync`.", cause(error), workdir / FOLDER,
            )  # fmt: skip
            self._begin(workdir, "offline", project, config)

    def _started(self, workdir: Path, mode: str, project: str, config: Mapping):
        folder = workdir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name in _OUTSIDE:
            os.environ[name] = str(folder / "library")
        import wandb

        settings = wandb.Settings(
            mode=mode, root_dir=str(workdir), silent=True, quiet=True, console="off",
            disable_git=True, disable_code=True, save_code=False, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, init_timeout=_START, login_timeout=_START,
            finish_timeout=_FINISH,
        )  # fmt: skip
        run = wandb.init(
            project=project, id=_identity(folder / _ID), name=workdir.name, resume="allow",
            config=dict(config), dir=str(workdir), settings=settings,
        )  # fmt: skip
        run.define_metric("*", step_metric=_STEP)
        return run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hands one line over, without waiting for the network; lists are only in
        `metrics.jsonl`."""
        if self._run is None:
            return
        numbers = {k: v for k, v in values.items() if not isinstance(v, list) and math.isfinite(v)}
        try:
            self._run.log({**numbers, _STEP: step})
        except Exception as error:
            self._gave_up("takes no more metrics", error)

    def close(self) -> None:
        """Ends the run, and waits a minute at most until all is uploaded."""
        run, self._run = self._run, None
        try:
            if run is not None:
                with waiting("Finishing Weights & Biases."):
                    run.finish()
        except Exception as error:
            self._gave_up("was not finished", error)
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def _gave_up(self, what: str, error: Exception) -> None:
        self._run = None
        _log.warning("Weights & Biases %s: %s. The training goes on.", what, cause(error))


def _identity(file: Path) -> str:
    """The name of the run in a file, which is made if there is none."""
    with contextlib.suppress(Unreadable, UnicodeDecodeError):
        known = read_bytes(file, 1000).decode("ascii").strip()
        if re.fullmatch(r"[a-z0-9]{8,64}", known):
            return known
    made = secrets.token_hex(8)
    write_atomically(file, made + "\n")
    return made
