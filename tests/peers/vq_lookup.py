"""Times finding the nearest of 16,384 codes here and with torch's cdist and argmin, on this CPU.

    pip install torch==2.13.0 -e .
    python tests/peers/vq_lookup.py [--rounds 12] [--json FILE]

4,096 positions of 256 channels, float32, the same numbers for all. torch computes the whole
[4096, 16384] matrix; `torch_blocks` does the same in blocks of 512 rows. Each contender is a
process that lives through all rounds. In every round each one runs a burst of calls, in random
order, and the first call is dropped. Ratios are computed within a round and their median and range
are printed, because times of different minutes cannot be compared on a shared machine. All have the
allocator keep freed pages (`FAST`), which helps torch most.

Peak memory is the increase during one call over what the process held before (VmHWM and VmRSS of
Linux), measured in separate processes whose allocator returns every large block, after a call that
compiles. Indices are compared; where they differ, so are the two squared distances, in float64.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time

import numpy as np
from side_by_side import Worker

POSITIONS, CODES, WIDTH = 4096, 16_384, 256
CALLS = 5
FAST = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "68719476736",
}  # fmt: skip
RETURNING = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
CONTENDERS = ("genzoo", "torch", "torch_blocks")


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """(positions, codes): normal, from a fixed seed."""
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (POSITIONS, CODES))


def genzoo_call():
    """(a call that returns the indices, its temporary bytes according to the compiler)."""
    import jax

    from genzoo.math.quantisation import nearest_code

    x, codes = map(jax.numpy.asarray, inputs())
    program = jax.jit(nearest_code).lower(x, codes).compile()
    temporary = program.memory_analysis().temp_size_in_bytes
    return lambda: jax.block_until_ready(program(x, codes)), temporary


def torch_call(blocks: bool):
    """(a call that returns the indices, None)."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x, codes = map(torch.from_numpy, inputs())
    if not blocks:
        return lambda: torch.cdist(x, codes).argmin(1), None
    return lambda: torch.cat([torch.cdist(b, codes).argmin(1) for b in x.split(512)]), None


def kilobytes(field: str) -> int:
    """A field of this process's memory status in Linux."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))


def peak_bytes(call) -> int:
    """The bytes that one call takes in addition to what the process holds."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak to the current memory
    held = kilobytes("VmRSS")
    call()
    return 1024 * (kilobytes("VmHWM") - held)


def work(contender: str) -> None:
    """The process of one contender: reads a request per line, answers with a line of JSON."""
    made = genzoo_call() if contender == "genzoo" else torch_call(contender == "torch_blocks")
    call, temporary = made
    for line in sys.stdin:
        wish, _, path = line.strip().partition(" ")
        answer = None
        if wish == "seconds":
            seconds = []
            for _ in range(CALLS + 1):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            answer = statistics.mean(seconds[1:])
        elif wish == "memory":
            call()
            answer = {"peak": peak_bytes(call), "temporary": temporary}
        else:
            np.save(path, np.asarray(call()))
        print("\n@" + json.dumps(answer), flush=True)


def worker_of(contender: str, allocator: dict) -> Worker:
    """The process of a contender, which answers "seconds", "memory" or "index FILE"."""
    return Worker(contender, environment={"JAX_PLATFORMS": "cpu", **allocator})


def memory(contender: str) -> dict:
    """The bytes of one call, measured in a separate process."""
    worker = worker_of(contender, RETURNING)
    answer = worker.ask("memory")
    worker.end()
    return answer


def disagreement(index: np.ndarray, other: np.ndarray) -> dict:
    """The number of indices that differ, and the largest difference of their squared distances."""
    x, codes = (values.astype(np.float64) for values in inputs())
    rows = np.flatnonzero(index != other)
    own, theirs = (np.square(x[rows] - codes[i[rows]]).sum(-1) for i in (index, other))
    return {"rows": len(rows), "largest_gap": float(np.abs(own - theirs).max(initial=0))}


def compare(rounds: int) -> dict:
    """Seconds, their ratio to genzoo's by round, memory and agreement of every contender."""
    workers = {name: worker_of(name, FAST) for name in CONTENDERS}
    seconds, index = {name: [] for name in workers}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            worker.ask(f"index {folder}/{name}.npy")  # compiles
            index[name] = np.load(f"{folder}/{name}.npy")
    for _ in range(rounds):
        for name in random.sample(list(workers), len(workers)):
            seconds[name].append(workers[name].ask("seconds"))
    for worker in workers.values():
        worker.end()
    result = {}
    for name, times in seconds.items():
        ratios = [t / own for t, own in zip(times, seconds["genzoo"], strict=True)]
        result[name] = {
            "seconds": round(statistics.median(times), 4),
            "seconds_range": [round(min(times), 4), round(max(times), 4)],
            "over_genzoo": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "bytes": memory(name),
            "differs": disagreement(index["genzoo"], index[name]),
        }
        print(name, json.dumps(result[name]), flush=True)
    return result


def main() -> None:
    """Parses flags and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    comparison = compare(arguments.rounds)
    report = {"cores": len(os.sched_getaffinity(0)), "machine": platform.platform(), **comparison}
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
