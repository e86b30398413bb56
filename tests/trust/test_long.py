"""A long run grows in nothing: 20,000 steps that save, draw pictures and are evaluated meanwhile
need the memory, files and threads of the first ones, and the last steps are as fast.

Two kinds of inputs: data held on the device, and images read from files by threads.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
STEPS = 20_000
BLOCK = 100  # steps between measurements, and between saves
PICTURES, EVALUATIONS = 500, 5000  # steps between them
# Trains with pictures and evaluations at regular steps, and measures at every line of the log:
# processor time of all threads and of a fixed piece of work beside it, memory, open files, threads.
LONG = f"""
    import ctypes, gc, json, os, subprocess, sys, time
    from genzoo import main
    from genzoo.modes import train
    from orbax.checkpoint._src.serialization import tensorstore_utils

    # TensorStore 0.1.86 never frees the metrics that Orbax asks it for in each save, 3 kB and more.
    tensorstore_utils.get_tensorstore_raw_bytes = lambda *_, **__: 0

    def fixed():
        began, total = time.thread_time(), 0
        for number in range(200_000):
            total += number * number % 7
        return time.thread_time() - began

    def resident():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps is not in use
        for line in open("/proc/self/smaps_rollup"):
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024

    rows, made, began = [], {{"pictures": 0, "evaluations": 0}}, [time.process_time()]
    watched, training_pictures = train.Watch.__call__, train._training_pictures

    def measured(self, values):
        spent = time.process_time() - began[0]
        rows.append((spent, fixed(), resident(), len(os.listdir("/proc/self/fd")),
                     len(os.listdir("/proc/self/task")), sum(made.values())))
        began[0] = time.process_time()
        return watched(self, values)

    def pictures(experiment, place):
        draw = training_pictures(experiment, place)
        def drawn(state, step):
            draw(state, step)
            made["pictures"] += 1
            if step % {EVALUATIONS} == 0:
                line = [sys.executable, "-m", "genzoo.main", "--mode=eval"]
                subprocess.run([*line, f"--workdir={{place.path}}"], check=True, stdout=2)
                made["evaluations"] += 1
        return drawn

    train.Watch.__call__ = measured
    train._picture_steps = lambda _: set(range({PICTURES}, {STEPS} + 1, {PICTURES}))
    train._training_pictures = pictures
    code = main.main(sys.argv[1:])
    print("MEASURED", json.dumps([rows, made]))
    sys.exit(code)
"""
POINTS = (
    "--config=toy_mixture:smoke", f"--config.train.steps={STEPS}",
    "--config.train.steps_per_call=10", f"--config.train.save_every={BLOCK}",
    f"--config.train.log_every={BLOCK}", "--config.train.save_minutes=0",
)  # fmt: skip


def files(folder: Path) -> tuple[str, ...]:
    """The arguments of a run on small images in a folder, read again and again."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(64):
        pixels = noise.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return (
        "--config=dae_fashion:smoke", f"--config.data.name=folder:{folder}", "--config.data.size=8",
        "--config.data.channels=1", "--config.data.hold=0",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["held", "read"])
def test_twenty_thousand_steps(surroundings, tmp_path, tried, inputs):
    arguments = POINTS if inputs == "held" else (*files(tmp_path / "images"), *POINTS[1:])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LONG), *arguments, f"--workdir={tmp_path}/run"],
        cwd=ROOT, env=surroundings(haste=True), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    (line,) = (s for s in done.stdout.splitlines() if s.startswith("MEASURED"))
    rows, made = json.loads(line.removeprefix("MEASURED"))
    assert made == {"pictures": STEPS // PICTURES, "evaluations": STEPS // EVALUATIONS}
    assert len(rows) == STEPS // BLOCK
    seconds, fixed, memory, opened, threads, drawn = np.array(rows).T
    # In the first tenth everything is compiled.
    tenth = len(rows) // 10
    first, last = slice(tenth, 5 * tenth), slice(-4 * tenth, None)
    plain = np.diff(drawn, prepend=0) == 0  # blocks without pictures and evaluations
    # A busy machine slows both the steps and the fixed piece of work, by chance more the one or the
    # other, and few blocks are undisturbed. Steps that have become slower are so by either measure.
    slower = min(
        spent[last][plain[last]].min() / spent[first][plain[first]].min()
        for spent in (seconds, seconds / fixed)
    )
    assert slower < 1.05, (slower, seconds[plain].round(3), fixed.round(4))
    # Memory in the second half only: allocators keep what they once had.
    half = len(rows) // 2
    growth = np.median(memory[-tenth:]) - np.median(memory[half - tenth : half])
    assert growth < 8 << 20, memory[::10]
    for name, counts in (("files", opened), ("threads", threads)):
        # A pool may still gain a thread; one lost in every save or picture would be a hundred.
        assert np.median(counts[last]) <= np.median(counts[first]) + 2, (name, counts[::10])
    tried(
        f"20,000 steps, inputs {inputs}",
        f"{100 * (slower - 1):+.1f} % time, {growth / 2**20:+.1f} MiB in the second half, "
        f"{opened[-1]:.0f} files, {threads[-1]:.0f} threads",
    )
