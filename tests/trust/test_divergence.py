"""Runs that diverge: no good state is lost, the cause is named, and there is a way back.

The patterns of faults go through the real loop and the real guard, with checkpoints in memory; each
kind of checkpoint, of damage to the numbers and of mistake is then tried on the real files.
"""

import json
import logging
import shutil
from dataclasses import dataclass, field, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from runs import final_state, metrics
from train.toy import Game, Line

from genzoo.core import streams
from genzoo.core.contract import Player
from genzoo.core.errors import Interrupted, UserError
from genzoo.data.source import ArraySource
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.runtime import provenance
from genzoo.runtime.provenance import examined
from genzoo.runtime.stopping import Stop
from genzoo.train.checkpoint import Checkpoints, spared
from genzoo.train.diagnosis import diagnose
from genzoo.train.guard import EXPLODED, Guard, exploded, sizes
from genzoo.train.loop import LoopSettings, train
from genzoo.train.optimizer import Optimizer, constant, for_players
from genzoo.train.state import Faults, TrainState, initial
from genzoo.train.step import Updater
from genzoo.train.writers import Progress
from genzoo.workdir import Workdir

# --- what is saved and what is kept ---------------------------------------------------------------


@dataclass(kw_only=True)
class InMemory:
    """Checkpoints that are only listed: step -> (state, doubts)."""

    keep: int = 1
    keep_every: int = 0
    last_saved: int | None = None
    held: dict = field(default_factory=dict)
    ever: dict = field(default_factory=dict)

    def save(self, state: TrainState, doubts=()) -> None:
        if self.last_saved == int(state.step):
            return
        self.last_saved = int(state.step)
        self.held[self.last_saved] = self.ever[self.last_saved] = (state, list(doubts))
        steps = self.steps()
        good = spared(steps, self.newest_sound(), self.keep, self.keep_every)
        self.held = {step: self.held[step] for step in good}
        if any(not doubts for _, doubts in self.ever.values()):
            assert self.newest_sound() is not None

    def steps(self) -> list[int]:
        return sorted(self.held, reverse=True)

    def newest_sound(self) -> int | None:
        return next((s for s in self.steps() if not self.held[s][1]), None)

    def wait(self) -> None:
        pass


def state_at(step: int = 0, w: float = 0.0, faults: Faults | None = None) -> TrainState:
    return TrainState(
        step=jnp.int32(step), params={"w": jnp.full(2, w), "b": jnp.zeros(())},
        stats={"seen": jnp.int32(0), "codes": jnp.ones(2)}, opt_state={},
        averages={"ema": {"w": jnp.zeros(2)}}, faults=faults or Faults.none(),
    )  # fmt: skip


def replayed(finite: list[bool], checkpoints: InMemory, *, stop_at: int = -1, **settings):
    """Runs the loop over steps that are finite or not. Returns the error that ended it, if any."""
    chosen = LoopSettings(**{"batch_size": 4, "steps": len(finite), "log_every": 7, **settings})
    stop = Stop()

    def call(state, _):
        faults = state.faults
        for step in range(int(state.step), int(state.step) + chosen.steps_per_call):
            faults = faults.after(jnp.bool_(finite[step]), jnp.int32(step), chosen.fault_limit)
        after = int(state.step) + chosen.steps_per_call
        if after >= stop_at > 0:
            stop.signals.number = 15
        return replace(state, step=jnp.int32(after), faults=faults), {}

    try:
        train(
            state_at(), call, iter(range(len(finite) + 1)), settings=chosen,
            guard=Guard(checkpoints=checkpoints, limit=chosen.fault_limit), writers=[],
            progress=Progress(len(finite), False), pictures=lambda *_: None, picture_at=set(),
            report=lambda found: {}, stop=stop,
        )  # fmt: skip
    except (UserError, Interrupted) as error:
        return error
    return None


def streak_before(finite: list[bool], step: int) -> int:
    """The number of non-finite steps in a row before `step`."""
    count = 0
    while count < step and not finite[step - 1 - count]:
        count += 1
    return count


def check_pattern(seed: int) -> None:
    random = np.random.default_rng(seed)
    length, stride = int(random.integers(8, 33)) * 2, int(random.choice([1, 2]))
    bad, limit = random.random() * 0.6, int(random.integers(2, 7))
    finite = [bool(f) for f in random.random(length) > bad]
    settings = {
        "save_every": int(random.choice([2, 4, 6])), "fault_limit": limit, "steps_per_call": stride,
        "log_every": int(random.integers(1, 20)),
    }  # fmt: skip
    stop_at = int(random.choice([-1, length // 2]))
    kept = InMemory(keep=int(random.integers(1, 3)))
    error = replayed(finite, kept, stop_at=stop_at, **settings)
    assert all(streak_before(finite, step) == 0 for step in kept.ever)
    before = 0
    for step, (_, doubts) in kept.ever.items():
        assert bool(doubts) == (not all(finite[before:step])), (step, doubts)
        before = step
    fatal = next((s for s in range(length + 1) if streak_before(finite, s) >= limit), None)
    if error is None:
        assert fatal is None and finite[-1] and length in kept.ever
    elif isinstance(error, Interrupted):
        reached = max(kept.ever, default=0)
        assert ("saved." in str(error)) == (reached >= stop_at)
    else:
        last = fatal if fatal is not None else length
        first = last - (limit if fatal is not None else streak_before(finite, last))
        assert f"({first} to {last - 1})" in str(error) or f"step ({first})" in str(error)
        assert all(step <= first for step in kept.ever)
        newest = kept.newest_sound()
        assert (f"checkpoint is that of step {newest}" in str(error)) == (newest is not None)


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_saved_in_a_streak_and_a_good_state_stays(seed):
    check_pattern(seed)


@pytest.mark.slow
def test_five_hundred_more_patterns():
    for seed in range(1000, 1500):
        check_pattern(seed)


def test_a_save_that_falls_into_a_streak_follows_at_once():
    kept = InMemory(keep=9)
    assert replayed([i not in (3, 4, 5) for i in range(12)], kept, save_every=4) is None
    assert sorted(kept.ever) == [7, 8, 12]
    assert kept.ever[7][1] == ["3 of the steps since the last checkpoint were not finite"]
    assert kept.ever[8][1] == []


WRONG = [np.nan, np.inf, -np.inf]
LARGE = [2 * EXPLODED, -1e12, 3e38]
PLACES = ["params/w", "params/b", "stats/codes", "averages/ema/w"]


def spoiled(place: str, value: float) -> TrainState:
    """A state with a wrong number in the last entry of one array."""
    state, (part, *path) = state_at(20), place.split("/")
    tree = jax.tree.map(lambda x: x, getattr(state, part))
    inner = tree
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = jnp.ravel(inner[path[-1]]).at[-1].set(value).reshape(inner[path[-1]].shape)
    return replace(state, **{part: tree})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", WRONG)
def test_a_state_that_is_not_finite_is_not_saved(place, value):
    kept = InMemory()
    guard = Guard(checkpoints=kept, limit=3)
    guard.save(state_at(10))
    with pytest.raises(UserError, match=rf"not all arrays .* are finite: {place}\.") as caught:
        guard.save(spoiled(place, value))
    assert "resume_from=10" in str(caught.value) and caught.value.agreed
    assert kept.steps() == [10]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", LARGE)
def test_a_state_that_has_exploded_is_never_the_only_one(place, value):
    kept = InMemory(keep=1)
    guard = Guard(checkpoints=kept, limit=3)
    guard.save(state_at(10))
    assert guard.save(spoiled(place, value))
    counts = not place.startswith("stats/")  # sums over examples may be large
    assert bool(kept.ever[20][1]) == counts and kept.steps() == ([20, 10] if counts else [20])
    assert exploded(sizes(spoiled(place, value))) == [f"{place} (up to {abs(value):.1e})"] * counts
    guard.save(state_at(30))
    assert kept.steps() == [30]


def test_healthy_models_are_not_doubted():
    assert exploded(sizes(state_at(3, w=99.0))) == [] and len(sizes(state_at())) == 4


def saved(folder, *doubted: bool, **options) -> Checkpoints:
    """Checkpoints of steps 10, 20, ..., with doubts or without."""
    checkpoints = Checkpoints(directory=folder, **options)
    for place, doubt in enumerate(doubted):
        checkpoints.save(state_at(10 * (place + 1)), ["of no use"] * doubt)
    checkpoints.close()
    return checkpoints


@pytest.mark.parametrize(
    ("doubted", "keep", "expected"),
    [
        ((False, True, True), 1, [30, 10]),
        ((False, True, True, False), 1, [40]),
        ((True, True, True), 1, [30, 20]),
        ((False, True, True, True), 2, [40, 30, 10]),
        ((False, False, True), 2, [30, 20]),
    ],
)
def test_the_newest_good_checkpoint_survives_pruning(tmp_path, doubted, keep, expected):
    checkpoints = saved(tmp_path, *doubted, keep=keep)
    assert checkpoints.steps() == expected
    sound = [step for step in expected if not doubted[step // 10 - 1]]
    assert checkpoints.newest_sound() == (sound[0] if sound else None)


# --- where non-finite numbers come from -----------------------------------------------------------


class Block(nn.Module):
    """A dense layer, a normalisation and `act`."""

    act: object = nn.silu

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="dense")(x)
        return self.act(nn.LayerNorm(name="norm")(x))


class Net(nn.Module):
    """Two blocks, the second with `act`; wrap: applied to the second's class."""

    act: object = nn.silu
    wrap: object = staticmethod(lambda block: block)

    @nn.compact
    def __call__(self, x):
        x = Block(name="first")(x)
        return self.wrap(Block)(act=self.act, name="second")(x)


def overflow(x):
    return jnp.exp(100 + x**2)


def masked(x):  # the infinities are meant
    mask = jnp.where(jnp.arange(4) < 2, 0.0, -jnp.inf)
    return nn.softmax(x + mask) + jnp.where(x > 9, jnp.log(jnp.maximum(x, 0)), x)


def looped(x):
    return jax.lax.scan(lambda c, _: (c * 1e30, None), x + 10, jnp.arange(3))[0]


def branched(x):
    return jax.lax.cond(x.sum() < 1e9, lambda x: jnp.log(-jnp.abs(x)), lambda x: x, x)


FORWARD = {
    "overflow": (overflow, "exp"),
    "logarithm": (lambda x: jnp.log(x - 100), "log"),
    "division": (lambda x: x / jnp.zeros(4), "div"),
    "root": (lambda x: jnp.sqrt(x - 100), "sqrt"),
    "power": (lambda x: (1e30 * (1 + x**2)) ** 3, "integer_pow"),
    "difference": (lambda x: overflow(x) - overflow(x), "exp"),
    "product": (lambda x: (1e30 + 0 * x) @ (1e30 * jnp.ones((4, 4))), "dot_general"),
    "after a mask": (lambda x: jnp.log(masked(x) - 100), "log"),
    "beside a mask": (lambda x: jnp.where(X > 0, jnp.log(x - 100), -jnp.inf), "log"),
    "loop": (looped, "scan"),
    "branch": (branched, "cond"),
    "function": (jax.jit(lambda x: jnp.log(x - 100)), "log"),
    "vmap": (jax.vmap(lambda x: jnp.log(x - 100)), "log"),
    "custom derivative": (lambda x: nn.relu(jnp.log(x - 100)), "log"),
}
X = jnp.linspace(-1, 1, 12).reshape(3, 4)
PARAMS = Net().init(jax.random.key(0), X)["params"]


def losses_of(module: nn.Module):
    params = jax.tree.map(jnp.copy, PARAMS)
    return params, lambda params, x: (module.apply({"params": params}, x), ())


def same(block):
    return block


@pytest.mark.parametrize("case", FORWARD)
def test_the_module_of_the_first_wrong_activation_is_named(case):
    check_activation(case, same)


@pytest.mark.parametrize("case", ["overflow", "loop"])
def test_also_in_rematerialised_blocks(case):
    check_activation(case, nn.remat)


@pytest.mark.parametrize("case", ["overflow", "after a mask", "beside a mask", "loop", "vmap"])
def test_in_a_large_program_the_module_is_still_named(case, monkeypatch):
    """Modules as a whole have flags there; the operation may be a later one of the module."""
    monkeypatch.setattr(provenance, "_MOST_FINE", 0)
    params, losses = losses_of(Net(act=FORWARD[case][0]))
    found = examined(losses, params, X)
    assert {origin.module for origin in found.origins} == {"Net/second"}
    params["first"]["norm"]["bias"] += jnp.inf
    (origin,) = examined(losses, params, X).origins
    assert (origin.operation, origin.place) == ("argument", "first/norm/bias")


def check_activation(case, wrap):
    act, operation = FORWARD[case]
    params, losses = losses_of(Net(act=act, wrap=wrap))
    found = examined(losses, params, X)
    modules = {origin.module for origin in found.origins}
    assert all(name.startswith("Net/second") for name in modules), modules
    assert {origin.operation for origin in found.origins} == {operation}
    assert not any(origin.backward for origin in found.origins)


def test_infinities_that_are_meant_are_not_found():
    params, losses = losses_of(Net(act=masked))
    found = examined(losses, params, X)
    assert found.non_finite == () and found.origins == ()


@pytest.mark.parametrize(
    ("path", "value"),
    zip(["first/dense/kernel", "second/norm/scale", "second/dense/bias"], WRONG, strict=True),
)
def test_a_wrong_param_is_named_by_its_path(path, value):
    params, losses = losses_of(Net())
    params = jax.tree_util.tree_map_with_path(
        lambda p, x: (
            x.at[0].set(value) if jax.tree_util.keystr(p, simple=True, separator="/") == path else x
        ),
        params,
    )
    (origin,) = examined(losses, params, X).origins
    assert (origin.operation, origin.place) == ("argument", path)


def test_overflow_of_a_large_param_is_named_by_its_module():
    params, losses = losses_of(Net())
    params["second"]["dense"]["kernel"] *= 1e38 * 3
    (origin,) = examined(losses, params, X).origins
    assert (origin.module, origin.operation) == ("Net/second/dense", "dot_general")


@pytest.mark.parametrize("wrap", [same, nn.remat])
def test_the_module_of_the_first_wrong_gradient_is_named(wrap):
    module = Net(act=lambda x: jnp.sqrt(0 * x), wrap=wrap)
    params, losses = losses_of(module)
    found = examined(lambda p, x: (jax.grad(lambda p: losses(p, x)[0].sum())(p), ()), params, X)
    assert all(path.startswith(("first/", "second/")) for path in found.non_finite)
    assert {origin.module for origin in found.origins} == {"Net/second"}
    assert examined(losses, params, X).origins == ()


# --- a step that is repeated ----------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong(Line):
    """A line whose gradient is not finite at w = 0 although its loss is."""

    def loss(self, params, context):
        values, aux = super().loss(params, context)
        return values + jnp.sqrt(jnp.abs(params["w"])), aux


def updater_of(family, accumulate: int = 1) -> tuple[Updater, TrainState]:
    optimizer = Optimizer(decay=constant, total_steps=100, learning_rate=0.1, clip=0)
    players = for_players(family.losses, optimizer)
    updater = Updater(
        family=family, optimizers=players, averages={}, root=streams.root(0),
        prepare=lambda batch, key: batch, accumulate=accumulate,
    )  # fmt: skip
    return updater, initial(family, players, (), streams.root(0), {})


def batch_with(*bad: int, value: float = np.nan):
    x = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    x[list(bad)] = value
    return {"x": jnp.asarray(x)}


@pytest.mark.parametrize(
    ("accumulate", "bad", "value"),
    [
        (1, (2, 5), np.inf), (1, tuple(range(8)), np.nan), (4, (2, 5), np.nan), (4, (7,), -np.inf),
    ],
)  # fmt: skip
def test_the_examples_with_a_wrong_loss_are_found(accumulate, bad, value):
    updater, state = updater_of(Line(noise=0.1), accumulate)
    found = diagnose(updater, state, batch_with(*bad, value=value))
    assert np.flatnonzero(found.rows).tolist() == list(bad) and found.gradients == ()
    assert [origin.place for origin in found.origins] == ["batch/x"]


def test_a_finite_step_has_no_diagnosis():
    updater, state = updater_of(Line(noise=0.1), accumulate=4)
    assert diagnose(updater, state, batch_with()) is None


def test_a_wrong_gradient_of_a_finite_loss_is_found():
    updater, state = updater_of(Wrong(), accumulate=4)
    found = diagnose(updater, state, batch_with())
    assert found.gradients == ("w",) and not found.rows.any() and found.origins


def test_the_second_player_sees_what_the_first_one_did():
    """At the start both losses are finite; the update of the first breaks that of the second."""

    @dataclass(frozen=True)
    class Broken(Game):
        @property
        def losses(self):
            first, second = super().losses.values()

            def loss(params, context):
                values, aux = second.loss(params, context)
                moved = params["one"]["u"][0] != 1
                return values / jnp.where(moved, 0.0, 1.0), aux

            return {"first": first, "second": Player(loss=loss, trains=second.trains)}

    updater, state = updater_of(Broken())
    assert diagnose(updater, state, batch_with()).player == "second"
    _, sums = jax.jit(updater.update)(state, batch_with())
    assert sums["loss"][1] == 0  # it is the step that is repeated


# --- whole runs -----------------------------------------------------------------------------------

RUN = [
    "--config=toy_mixture:smoke", "--config.train.steps_per_call=1", "--config.train.save_every=4",
    "--config.train.keep=9", "--config.train.picture_count=0", "--config.train.log_every=2",
    "--config.optimizer.weight_decay=1",
]  # fmt: skip


def run(workdir, *changes, steps: int = 12) -> int:
    return main([*RUN, f"--workdir={workdir}", f"--config.train.steps={steps}", *changes])


def steps_of(workdir) -> list[int]:
    return Workdir(workdir).checkpoints(keep=1).steps()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with checkpoints of the steps 4, 8 and 12."""
    workdir = tmp_path_factory.mktemp("divergence") / "run"
    assert run(workdir) == 0
    return workdir


@pytest.fixture
def again(finished, tmp_path):
    """A copy of it, to change."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(folder) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_going_back_sets_aside_what_came_later_and_says_so(again, capsys, caplog):
    later = {step: contents(again / "checkpoints" / str(step)) for step in (8, 12)}
    curve = (again / "metrics.jsonl").read_bytes()
    with caplog.at_level(logging.INFO, logger="genzoo"):
        changed = ["--config.train.resume_from=4", "--config.optimizer.learning_rate=1e-4"]
        assert run(again, *changed) == 0
    assert "Resuming from the checkpoint of step 4." in caplog.text
    for step, files in later.items():
        assert f"later-{step}" in caplog.text
        assert contents(again / "checkpoints" / f"later-{step}") == files
    aside = again / "later-metrics.jsonl"
    assert aside.name in caplog.text and aside.read_bytes() == curve
    assert steps_of(again) == [12, 8, 4]
    assert [step for (step,) in metrics(again, "step")] == [2, 4, 6, 8, 10, 12]
    # The same command goes on with what was made since; the workdir alone does not go back again.
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="genzoo"):
        assert run(again, *changed, steps=16) == 0
        assert "Resuming from the checkpoint of step 12." in caplog.text
        assert main([f"--workdir={again}", "--config.train.steps=20"]) == 0
    assert "Resuming from the checkpoint of step 16." in caplog.text
    assert "resume_from" not in (again / "config.json").read_text()
    assert steps_of(again) == [20, 16, 12, 8, 4]
    # Another attempt from the same step goes back again.
    assert run(again, changed[0], "--config.optimizer.learning_rate=1e-5") == 0
    assert steps_of(again) == [12, 8, 4]
    aside = [p.name for p in (again / "checkpoints").iterdir() if not p.name.isdigit()]
    assert sorted(name.split("-")[1] for name in aside) == ["12", "12", "16", "20", "8", "8"]


@pytest.mark.slow
def test_going_back_without_a_change_gives_the_same_bits(again, finished):
    assert run(again, "--config.train.resume_from=4") == 0
    chex.assert_trees_all_equal(final_state(again), final_state(finished))


@pytest.mark.parametrize("step", [1, 5, 13, 999, 2**31 - 1])
def test_a_step_without_a_checkpoint_is_refused_and_nothing_changes(again, step, capsys):
    before = contents(again)
    assert run(again, f"--config.train.resume_from={step}", steps=20) == 2
    error = capsys.readouterr().err
    assert f"train.resume_from = {step}" in error and "it has 4, 8, 12" in error
    assert contents(again) == before


@pytest.mark.parametrize("value", [-1, 1.5, "x", "True", "nan", "[4]"])
def test_a_value_that_is_no_step_is_refused(again, value, capsys):
    assert run(again, f"--config.train.resume_from={value}") == 2
    assert "train.resume_from" in capsys.readouterr().err and steps_of(again) == [12, 8, 4]


def test_a_damaged_checkpoint_is_not_gone_back_to(again, capsys):
    largest = max((again / "checkpoints" / "4").rglob("*"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    assert run(again, "--config.train.resume_from=4", steps=20) == 2
    assert "is damaged" in capsys.readouterr().err
    assert {p.name for p in (again / "checkpoints").iterdir()} == {"4", "8", "12"}


def test_what_was_set_aside_by_going_back_is_still_there(again):
    folder = again / "checkpoints"
    for step in (4, 8, 12):
        (folder / str(step)).rename(folder / f"later-{step}")
    checkpoints = Workdir(again).checkpoints(keep=1)
    with pytest.raises(UserError, match=r"is good\. What .*\(later-12, later-4, later-8\): rename"):
        checkpoints.newest()
    (folder / "later-8").rename(folder / "8")
    assert checkpoints.newest() == 8
    checkpoints.close()


def test_going_back_and_starting_over_exclude_each_other(again, capsys):
    assert run(again, "--config.train.resume_from=4", "--config.train.restart=True") == 2
    assert "exclude each other" in capsys.readouterr().err and steps_of(again) == [12, 8, 4]


def test_a_new_run_cannot_go_back(tmp_path, capsys):
    assert run(tmp_path / "new", "--config.train.resume_from=4") == 2
    assert "it has none" in capsys.readouterr().err


def test_a_run_that_diverges_names_everything_and_can_be_mended(again, capsys):
    worse = ["--config.optimizer.learning_rate=1000", "--config.train.fault_limit=2"]
    assert run(again, *worse, steps=40) == 2
    error = capsys.readouterr().err
    report = json.loads((again / "diverged.json").read_text())
    first = report["step"]
    assert f"2 steps in a row ({first} to {first + 1}) had a non-finite loss or gradient" in error
    assert f"The last good step is {first - 1}" in error
    assert "the last good checkpoint is that of step 12." in error
    assert f"Step {first} saw the examples {report['examples'][0]}, " in error
    assert len(report["examples"]) == 32
    assert "PointMLP" in error and "The model has exploded: params/" in error
    assert "Lower optimizer.learning_rate (it is 1000; try 100)" in error
    assert "--config.train.resume_from=12 (or further back: 8, 4)" in error
    assert "Traceback" not in error
    assert run(again, "--config.train.resume_from=12", steps=16) == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(final_state(again)))


@pytest.fixture
def with_wrong_data(monkeypatch):
    """(rows, value) -> opens every data set with this value in some examples."""
    open_real = Experiment.open

    def spoil(rows, value):
        def opened(self, split):
            source = open_real(self, split)
            arrays = {k: np.array(v) for k, v in source.arrays.items()}
            arrays["x"][list(rows), 1] = value
            return ArraySource(name=source.name, spec=source.spec, arrays=arrays)

        monkeypatch.setattr(Experiment, "open", opened)

    return spoil


def seen_by(step: int, place: int, size: int = 50000) -> int:
    from genzoo.data import order

    return int(order.indices(0, step * 32 + place, 1, size)[0])


@pytest.mark.parametrize(
    "value", [WRONG[0], *(pytest.param(value, marks=pytest.mark.slow) for value in WRONG[1:])]
)
def test_wrong_numbers_in_the_data_are_named_by_example(tmp_path, with_wrong_data, value, capsys):
    bad = sorted(seen_by(5, place) for place in (3, 20))
    with_wrong_data(bad, value)
    assert run(tmp_path / "run", "--config.train.fault_limit=1") == 2
    error = capsys.readouterr().err
    assert f"The data hold NaN or infinity in x of {bad[0]}, {bad[1]}." in error
    assert "Repair or remove these examples" in error
    report = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert report["step"] == 5 and sorted(report["examples_with_non_finite_loss"]) == bad
    assert report["examples_with_non_finite_data"] == {"x": bad}
    assert steps_of(tmp_path / "run") == [4]


def test_a_rare_wrong_example_is_named_and_the_run_goes_on(tmp_path, with_wrong_data, caplog):
    bad = seen_by(5, 3)
    with_wrong_data([bad], np.nan)
    with caplog.at_level(logging.WARNING, logger="genzoo"):
        assert run(tmp_path / "run") == 0
    assert f"The data hold NaN or infinity in x of {bad}." in caplog.text
    assert caplog.text.count("changed nothing") == 1
    checkpoints = Workdir(tmp_path / "run").checkpoints(keep=1)
    assert checkpoints.doubts(8) and not checkpoints.doubts(12) and not checkpoints.doubts(4)


def test_a_run_that_ends_in_a_streak_has_not_done_its_work(tmp_path, with_wrong_data, capsys):
    with_wrong_data([seen_by(11, 0)], np.nan)
    assert run(tmp_path / "run") == 2
    assert "1 step (11) had a non-finite loss" in capsys.readouterr().err
    assert steps_of(tmp_path / "run") == [8, 4]
