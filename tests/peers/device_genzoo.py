"""genzoo's side of device_speed.py: the training step and the sampler of a run."""

import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from device_cases import CASES
from device_profile import of_jax
from device_report import SCRATCH
from device_worker import serve

from genzoo import check, config
from genzoo.core import tree
from genzoo.experiment import Experiment, variables_of
from genzoo.modes.sample import draw
from genzoo.requests import Requests
from genzoo.runtime.compilation import compile_program
from genzoo.runtime.cost import peak_memory_bytes


class Genzoo:
    """The contender. A synthetic data set is held on the device, as a small data set is in a run;
    the state is donated; each step gets its row numbers from the host."""

    def __init__(self, case: str):
        self._case, self._calls, self._state = CASES[case], {}, None

    def compile(self, measure: str) -> dict:
        """Compiles the program of a measure; returns seconds, parameters and the bytes it needs."""
        kind, size = measure.split("_")
        raw = config.override(config.load(self._case.config), self._case.settings(measure))
        experiment = Experiment(check.check(raw))
        if self._state is None:
            self._state = experiment.new_state()
        made = {"train": self._step, "ddim": self._sampler}[kind](experiment, int(size))
        program, self._calls[measure] = made
        return {
            "compile_seconds": round(program.compile_seconds, 2),
            "parameters": tree.count(self._state.params),
            "program_bytes": _bytes(program.compiled.memory_analysis()),
            "device": jax.devices()[0].device_kind,
        }

    def burst(self, measure: str, calls: str) -> dict:
        """Seconds per call over several calls, which the device may overlap as in a run."""
        start = time.perf_counter()
        for _ in range(int(calls)):
            waited = self._calls[measure]()
        jax.block_until_ready(waited)
        seconds = (time.perf_counter() - start) / int(calls)
        return {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}

    def profile(self, measure: str) -> dict:
        """The kernels of three calls, sorted by time."""
        folder = Path(tempfile.mkdtemp(dir=SCRATCH))
        with jax.profiler.trace(str(folder)):
            self.burst(measure, "3")
        (file,) = folder.rglob("*.xplane.pb")
        return of_jax(file, calls=3)

    def _step(self, experiment: Experiment, size: int):
        placement, random = experiment.placement, np.random.default_rng(0)
        fields = experiment.spec.fields
        held = {name: field.made_up(random, 2 * size) for name, field in fields.items()}
        data = placement.put_everywhere(experiment.flat(held))

        def rows():
            indices = random.integers(0, 2 * size, (1, size)).astype(np.int32)
            return placement.put_batch({"rows": indices}, leading=1)

        program = compile_program(experiment.training(self._state, data, rows()))

        def step():
            self._state, measured = program(self._state, data, rows())
            return measured

        return program, step

    def _sampler(self, experiment: Experiment, size: int):
        programs, requests = {}, Requests(experiment=experiment, family=experiment.family)

        def sample():
            weights = experiment.config.sample.weights
            return list(draw(requests, variables_of(self._state, weights), programs, size))

        sample()
        return programs[size], sample


def _bytes(analysis) -> int | None:
    """The bytes of arguments, results and scratch together, if the backend reports them."""
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


if __name__ == "__main__":
    serve(Genzoo(sys.argv[1]))
