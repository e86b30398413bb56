"""Trains one config for a few steps on meshes of one to eight virtual devices and prints JSON.

test_sharding.py runs this in a process of its own."""

import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from toy import Game

from genzoo import check, config, runs
from genzoo.core import streams, tree
from genzoo.experiment import Experiment
from genzoo.runtime.collectives import collectives
from genzoo.runtime.compilation import compile_program
from genzoo.train.averages import Average
from genzoo.train.optimizer import Optimizer, constant, for_players
from genzoo.train.sharding import MeshSettings, placement
from genzoo.train.state import initial
from genzoo.train.step import Updater
from genzoo.workdir import Workdir

POINTS = ("configs/toy_mixture.py:smoke", {"train.batch_size": "16", "train.steps_per_call": "1"})
# A network with convolutions, in bfloat16 and with remat.
IMAGES = (
    "configs/ddpm_fashion.py:smoke",
    {"train.batch_size": "16", "network.dtype": "bfloat16", "network.remat": "full"},
)
VQVAE, PRIOR = "configs/vqvae_fashion.py:smoke", "configs/prior_vqvae_fashion.py:smoke"
CALLS = 3


def experiment(case: tuple, devices: int, **changes: str) -> Experiment:
    path, own = case
    overrides = own | {k.replace("__", "."): v for k, v in changes.items()}
    raw = config.override(config.load(path), overrides)
    checked = check.check(raw, devices)
    return Experiment(checked, devices=tuple(jax.devices()[:devices]))


def run(case: tuple, devices: int, **changes: str) -> dict:
    """Losses of a few calls, bytes of the state on one device, unsplit arrays, collectives."""
    made = experiment(case, devices, **changes)
    place, settings = made.placement, made.config.train
    size, stride = settings.batch_size, settings.steps_per_call
    random = np.random.default_rng(0)
    records = {name: field.made_up(random, 64) for name, field in made.spec.fields.items()}
    data = place.put_everywhere(made.flat(records))
    state = made.new_state()
    shard = jax.tree.map(lambda x: x.addressable_data(0), state)
    split = [x for x in jax.tree.leaves(state.params) if not x.is_fully_replicated]
    rows = random.integers(0, 64, (CALLS, stride, size)).astype(np.int32)
    inputs = [place.put_batch({"rows": r[:, place.rows(size)]}, leading=1) for r in rows]
    program = compile_program(made.training(state, data, inputs[0]))
    moved = collectives(program.compiled.as_text(), once=True, most=True)
    losses = []
    for one in inputs:
        state, sums = program(state, data, one)
        total, weight = sums["loss"]
        losses.append(float(total / weight))
    return {
        "losses": losses,
        "norm": float(jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(state.params)))),
        "bytes": tree.size_in_bytes(shard),
        "split": len(split),
        "unsplit": len(place.unsplit({"params": state.params})),
        "collectives": {kind: each.count for kind, each in moved.items()},
    }


def players(devices: int, fsdp: int) -> dict:
    """Two players over twelve steps, of which the second moves at every other step: their final
    params, the losses, and the number of split arrays in the state."""
    game = Game(size=16, second={"after": 2, "every": 2})
    optimizer = Optimizer(decay=constant, total_steps=12, learning_rate=0.01)
    optimizers = for_players(game.losses, optimizer)
    place = placement(MeshSettings(fsdp=fsdp, floor=1), jax.devices()[:devices])
    updater = Updater(
        family=game, optimizers=optimizers, averages={"ema": Average(decay=0.9)},
        prepare=lambda batch, key: batch, root=streams.root(0), gathered=place.gathered,
    )  # fmt: skip

    def start():
        return initial(game, optimizers, ("ema",), streams.root(0), {})

    where = place.state(jax.eval_shape(start))
    state = jax.jit(start, out_shardings=where)()
    step = jax.jit(updater.update, donate_argnums=0, out_shardings=(where, place.replicated))
    losses = []
    for _ in range(12):
        state, sums = step(state, place.put_batch({"x": np.zeros((8, 1), np.float32)}))
        losses.append({k: [float(x) for x in sums[k]] for k in ("loss_first", "loss_second")})
    split = [x for x in jax.tree.leaves(state) if not x.is_fully_replicated]
    whole = jax.device_get((state.params, state.averages))
    flat = [float(x) for leaf in jax.tree.leaves(whole) for x in leaf]
    return {"losses": losses, "numbers": flat, "split": len(split)}


def others(folder: Path) -> dict:
    """A prior on the tokenizer of another run, started on eight devices with split params and read
    on four and one: whether the bits are equal, and how many arrays are split."""
    path, wide = folder / "vqvae", {"mesh__fsdp": "2", "mesh__floor": "1"}
    tokenizer = experiment((VQVAE, {}), 1)
    _saved(path, tokenizer.config, state := tokenizer.new_state())
    case = (PRIOR, {"frozen.tokenizer.workdir": str(path), "eval.batch_size": "16"})
    case[1].update({"train.batch_size": "16"})

    def prior(devices: int, **changes: str) -> Experiment:
        made = experiment(case, devices, **changes)
        return Experiment(runs.resolve(made.config, None), devices=made.devices)

    # Opening another run uses all devices, so this mesh has all of them too.
    ours, place = prior(8, **wide), Workdir(folder / "prior")
    started = runs.first_state(ours, place)
    _saved(place.path, ours.config, started)
    found = {"split": sum(not x.is_fully_replicated for x in jax.tree.leaves(started.frozen))}
    theirs = {"params": state.params, "stats": state.stats}
    found["placed"] = _equal(started.frozen, {"tokenizer": theirs})
    for devices, changes in {4: {"mesh__fsdp": "4", "mesh__floor": "1"}, 1: {}}.items():
        there = prior(devices, **changes)
        read = place.load(there.config, there.abstract_state)
        found[f"read on {devices}"] = _equal(read, started)
        where = jax.tree.map(lambda x: x.sharding, read)
        wanted = jax.tree.map(lambda x: x.sharding, there.abstract_state)
        found[f"placed on {devices}"] = where == wanted
    again = prior(8, **wide, start__workdir=str(place.path), seed="5")
    begun = runs.first_state(again, Workdir(folder / "again"))
    found["started"] = _equal(begun.params, started.params)
    return found


def _saved(path: Path, settings, state) -> None:
    config.write_json(path / "config.json", settings.to_dict())
    checkpoints = Workdir(path).checkpoints(keep=1)
    checkpoints.save(state)
    checkpoints.close()


def _equal(one, other) -> bool:
    same = jax.tree.map(np.array_equal, jax.device_get(one), jax.device_get(other))
    return all(jax.tree.leaves(same))


def meshes() -> dict:
    """Name of the run -> its results."""
    split = {"mesh__floor": "1"}
    found = {"points": run(POINTS, 1)}
    for devices, fsdp in [(2, 1), (4, 2), (8, 8)]:
        name = f"points {devices} {fsdp}"
        found[name] = run(POINTS, devices, mesh__fsdp=str(fsdp), **split)
    rules = "(('out', 'replicated'), ('kernel', '1'))"
    found["points rules"] = run(POINTS, 4, mesh__fsdp="4", mesh__rules=rules, mesh__floor="1")
    several = {"train__accumulate": "2", "train__steps_per_call": "2", "train__save_every": "2"}
    found["points several"] = run(POINTS, 1, **several)
    found["points several 4 2"] = run(POINTS, 4, mesh__fsdp="2", **split, **several)
    found["images"] = run(IMAGES, 1)
    found["images 4 2"] = run(IMAGES, 4, mesh__fsdp="2", **split)
    found["muon"] = run(POINTS, 1, optimizer__method="muon")
    found["muon 4 2"] = run(POINTS, 4, optimizer__method="muon", mesh__fsdp="2", **split)
    for devices, fsdp in [(1, 1), (4, 2)]:
        found[f"players {devices} {fsdp}"] = players(devices, fsdp)
    return found


def main() -> None:
    """Prints one JSON object: of the meshes, or of `others` if that is the argument."""
    if "others" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            found = others(Path(folder))
    else:
        found = meshes()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
