"""Players in turn, against the closed form of alternating gradient descent on a quadratic game:

    u <- u - rate (a u + b v),  then  v <- v + rate b u,        both linear in (u, v).
"""

import warnings
from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train.toy import Game, Line

from genzoo import check, config
from genzoo.core import streams, tree
from genzoo.core.contract import Aux, Player, Variables
from genzoo.core.errors import UserError
from genzoo.core.reports import by_name
from genzoo.evaluate.score import score_batch
from genzoo.modes import train as mode
from genzoo.train.averages import Average
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.optimizer import Optimizer, constant, for_players, linear
from genzoo.train.sharding import placement
from genzoo.train.state import initial, own_params
from genzoo.train.step import Updater
from genzoo.workdir import Workdir

RATE, A, B = 0.1, 0.3, 0.7


@dataclass(frozen=True, kw_only=True)
class Descent(Optimizer):
    """Plain gradient descent after clipping."""

    def transformation(self):
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        return optax.chain(clip, optax.sgd(self.schedule()))


DESCENT = Descent(decay=constant, total_steps=40, learning_rate=RATE, clip=0)


def made(game=None, *, optimizer=DESCENT, own=None, **settings):
    game = game or Game(a=A, b=B)
    optimizers = for_players(game.losses, optimizer, own)
    updater = Updater(
        family=game, optimizers=optimizers,
        averages={"ema": Average(decay=0.5, warmup=False)},
        prepare=lambda batch, key: batch, root=streams.root(0), **settings,
    )  # fmt: skip
    return updater, initial(game, optimizers, ("ema",), streams.root(0), {})


def batch(rows=4):
    return {"x": jnp.zeros((rows, 1))}


def trajectory(updater, state, steps):
    """(u, v) before every step and after the last, [steps + 1, 2], and the metrics of each step."""
    step, points, measured = jax.jit(updater.update), [], []
    for _ in range(steps):
        points.append((state.params["one"]["u"][0], state.params["two"]["v"][0]))
        state, sums = step(state, batch())
        measured.append(jax.device_get(sums))
    points.append((state.params["one"]["u"][0], state.params["two"]["v"][0]))
    return np.array(points), measured, state


def moves(rate_first, rate_second):
    """The matrix of one step with these learning rates, 0 for a player that does not move."""
    first = np.array([[1 - rate_first * A, -rate_first * B], [0, 1]])
    second = np.array([[1, 0], [rate_second * B, 1]])
    return second @ first


def expected(rates):
    points = [np.array([1.0, -0.5])]
    for pair in rates:
        points.append(moves(*pair) @ points[-1])
    return np.array(points)


@pytest.mark.parametrize("settings", [{}, {"branch": True, "skip": False}])
def test_the_second_player_sees_what_the_first_has_done(settings):
    found, _, state = trajectory(*made(**settings), 20)
    matrix = np.array([[1 - RATE * A, -RATE * B],
                       [RATE * B * (1 - RATE * A), 1 - (RATE * B) ** 2]])  # fmt: skip
    powers = [np.linalg.matrix_power(matrix, k) @ [1.0, -0.5] for k in range(21)]
    np.testing.assert_allclose(found, powers, rtol=1e-5, atol=1e-6)
    assert state.step == 20 and state.stats["calls"] == 40
    chex.assert_trees_all_equal(state.params["spare"], jnp.ones(3))


@pytest.mark.parametrize("skip", [True, False])
def test_a_player_waits_and_rests_and_counts_its_own_moves(skip):
    falling = replace(DESCENT, decay=linear, total_steps=17)
    game = Game(a=A, b=B, second={"after": 3, "every": 5})
    updater, state = made(game, optimizer=falling, skip=skip)
    found, measured, state = trajectory(updater, state, 17)
    # It moves at steps 3, 8 and 13, so the linear decay takes three moves.
    turns = {3: RATE, 8: RATE * 2 / 3, 13: RATE / 3}
    rates = [(RATE * (1 - n / 17), turns.get(n, 0.0)) for n in range(17)]
    np.testing.assert_allclose(found, expected(rates), rtol=1e-5, atol=1e-6)
    assert state.stats["calls"] == 17 + 3
    for n, sums in enumerate(measured):
        assert sums["loss_first"] == sums["loss"] and sums["loss"][1] == 4
        rate, weight = sums["learning_rate_second"]  # that of its last move
        assert weight == (n >= 3)
        last = max((turn for turn in turns if turn <= n), default=3)
        assert rate == pytest.approx(turns[last], rel=1e-5)
        assert sums["gradient_norm_second"][1] == (n in turns)
        assert sums["loss_second"][1] == sums["u_second"][1] == 4 * (n in turns)


def test_the_moves_before_a_step_are_those_that_were_made():
    for after, every in [(0, 1), (3, 5), (7, 1), (0, 2)]:
        player = Player(loss=None, after=after, every=every)
        made = [bool(player.moves_at(n)) for n in range(30)]
        assert made == [n >= after and (n - after) % every == 0 for n in range(30)]
        assert [player.moves_before(n) for n in range(31)] == [sum(made[:n]) for n in range(31)]
        assert [int(player.moves_before(jnp.int32(n))) for n in range(31)] == [
            sum(made[:n]) for n in range(31)
        ]


def test_no_gradient_of_the_others_is_taken_or_kept():
    differentiated = []
    grad = jax.grad

    def spy(function, **options):
        return lambda mine, *rest: (differentiated.append(mine), grad(function, **options))[1](
            mine, *rest
        )

    updater, state = made(Game(a=A, b=B, size=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "grad", spy)
        jax.eval_shape(updater.update, state, batch())
    assert [set(mine) for mine in differentiated] == [{"one"}, {"two"}]
    adam, _ = made(Game(size=5), optimizer=Optimizer(decay=constant, total_steps=4))
    started = initial(adam.family, adam.optimizers, (), streams.root(0), {}).opt_state
    for name, others in {"first": {"v", "spare"}, "second": {"u", "spare"}}.items():
        paths = " ".join(
            tree.path_string(p) for p, _ in jax.tree_util.tree_leaves_with_path(started[name])
        )
        assert not others & set(paths.replace("/", " ").split())
        sizes = sorted(leaf.size for leaf in jax.tree.leaves(started[name]))
        assert sizes == [1, 1, 5, 5]  # the counts of Adam and of the schedule, two moments


def test_norm_and_clipping_are_of_the_own_part():
    clip = 0.01
    updater, state = made(optimizer=replace(DESCENT, clip=clip), own={"second": {"clip": 0.0}})
    found, measured, _ = trajectory(updater, state, 1)
    u, v = 1.0, -0.5
    gradient = A * u + B * v
    # The first gradient is clipped by its own norm, and the second is not clipped.
    u_new = u - RATE * clip * np.sign(gradient)
    assert abs(gradient) < abs(B * u) and abs(gradient) < 0.1
    np.testing.assert_allclose(found[1], [u_new, v + RATE * B * u_new], rtol=1e-6)
    # The norm over the params it trains, not over all: 0.05 of 0.7.
    bigger, big = made(Game(a=A, b=B, size=9))
    _, measured, _ = trajectory(bigger, big, 1)
    u, v = np.linspace(1, 2, 9), -0.5 * np.linspace(1, 2, 9)
    norms = np.linalg.norm(A * u + B * v), np.linalg.norm(B * (u - RATE * (A * u + B * v)))
    names = ("gradient_norm", "gradient_norm_first", "gradient_norm_second")
    found = [measured[0][name][0] for name in names]
    np.testing.assert_allclose(found, [norms[0], *norms], rtol=1e-6)


def test_a_player_has_its_own_optimizer_settings():
    own = {"second": {"learning_rate": 3 * RATE, "decay": linear, "warmup": 2}}
    updater, state = made(own=own)
    found, _, _ = trajectory(updater, state, 6)
    late = [3 * RATE * (1 - n / 38) for n in range(4)]
    rates = [(RATE, rate) for rate in [1.5 * RATE, 3 * RATE, *late]]
    np.testing.assert_allclose(found, expected(rates), rtol=1e-5)


def test_an_unknown_player_is_named_with_those_there_are():
    with pytest.raises(UserError, match=r"players.third is not a player .* has first, second\."):
        for_players(Game().losses, DESCENT, {"third": {"clip": 1.0}})
    with pytest.raises(ValueError, match=r"'x' trains \('three/',\): no param"):
        own_params("x", Player(loss=None, trains=("three/",)), {"one": {"u": 0}})


def test_a_fault_of_a_later_player_undoes_the_step_and_one_out_of_turn_is_none():
    updater, state = made()
    broken = {"x": jnp.full((4, 1), jnp.nan)}
    after, sums = jax.jit(updater.update)(state, broken)
    for name in ("params", "stats", "opt_state", "averages"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(state, name))
    assert after.faults.total == 1 and all(weight == 0 for _, weight in sums.values())
    for settings in ({"skip": True}, {"skip": False}):
        only_second = Game(first={"after": 9}, reader=lambda context: None)
        updater, state = made(only_second, **settings)
        # The metrics of a player that does not move are ignored.
        poisoned = replace(state, params={**state.params, "two": {"v": jnp.zeros(1)}})
        after, sums = jax.jit(updater.update)(poisoned, batch())
        assert after.faults.total == 0 and sums["loss"] == (0, 0)
        assert after.params["one"]["u"] == 1 and after.params["two"]["v"] != 0


def test_the_average_follows_also_where_the_last_player_rests():
    updater, state = made(Game(a=A, b=B, second={"after": 100}))
    average = 1.0
    for _ in range(3):
        state, _ = jax.jit(updater.update)(state, batch())
        average = (average + float(state.params["one"]["u"][0])) / 2
    assert float(state.averages["ema"]["one"]["u"][0]) == pytest.approx(average, rel=1e-6)


def test_one_program_takes_the_memory_of_its_state():
    game = Game(size=64, second={"after": 2, "every": 3})
    updater, state = made(game)
    step = jax.jit(chex.assert_max_traces(updater.update, n=1), donate_argnums=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Some donated buffers")
        for _ in range(5):
            given = state
            state, _ = step(state, batch())
    assert all(x.is_deleted() for x in jax.tree.leaves(given))
    several, start = made(game)
    rows = jnp.zeros((5, 4), jnp.int32)
    together, _ = jax.jit(several.call)(start, {"x": jnp.zeros((9, 1))}, {"rows": rows})
    chex.assert_trees_all_equal(together, state)


@pytest.mark.parametrize("decay_biases", [True, False])
def test_weight_decay_shrinks_the_weights_and_the_biases_if_they_are_to(decay_biases):
    # A gradient of 0 leaves the decay alone: w (1 - rate decay).
    adamw = Optimizer(
        decay=constant, total_steps=4, learning_rate=0.1, weight_decay=0.5,
        decay_biases=decay_biases,
    ).transformation()  # fmt: skip
    params = {"layer": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "gamma": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    moves, _ = adamw.update(zero, adamw.init(params), params)
    found = jax.tree.map(lambda x: float(x[0]), optax.apply_updates(params, moves))
    bias = 0.95 if decay_biases else 1.0
    expected = {"layer": {"kernel": 0.95, "bias": bias}, "gamma": 0.95}
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_resume_is_exact(tmp_path):
    game = Game(a=A, b=B, second={"after": 2, "every": 3})
    adam = Optimizer(decay=linear, total_steps=12, learning_rate=0.1)
    updater, state = made(game, optimizer=adam)
    step = jax.jit(updater.update)
    for _ in range(6):
        state, _ = step(state, batch())
    checkpoints = Checkpoints(directory=tmp_path)
    checkpoints.save(state)
    checkpoints.wait()
    abstract = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        state, placement().state(state),
    )  # fmt: skip
    resumed = checkpoints.restore(abstract)
    checkpoints.close()
    for _ in range(6):
        state, _ = step(state, batch())
        resumed, _ = step(resumed, batch())
    chex.assert_trees_all_equal(jax.device_get(resumed), jax.device_get(state))


# --- losses that couple the rows of a batch -------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """The loss of each example is its distance from the mean of the batch."""

    def init(self, key, example):
        del key, example
        return Variables(params={"w": jnp.ones(())})

    @property
    def losses(self):
        return {"model": Player(loss=self.loss, couples_rows=True)}

    def loss(self, params, context):
        x, mask = params["w"] * context.batch["x"][:, 0], context.mask
        mean = jnp.sum(jnp.where(mask > 0, x, 0)) / mask.sum()
        return (x - mean) ** 2, Aux()


def test_a_loss_that_couples_rows_is_handed_the_mask():
    values, filling = np.array([1.0, 2.0, 6.0]), [99.0, -7.0, np.nan, 3.0, 0.0]
    for rows in (values, [*values, *filling]):
        x = jnp.asarray(rows)[:, None]
        padded = {"x": x, "mask": 1.0 * (jnp.arange(len(x)) < 3), "index": jnp.arange(len(x))}
        variables = Variables(params={"w": jnp.float32(1)})
        found = score_batch(Contrast(), variables, padded, streams.root(0), jnp.int32(0))
        total, weight = found["loss"]["loss"]
        assert (float(total / weight), weight) == (pytest.approx(np.var(values)), 3)
    seen = []
    game = Game(second={"couples_rows": True}, reader=lambda context: seen.append(context.mask))
    updater, state = made(game)
    updater.update(state, batch(6))
    assert seen[0] is None
    np.testing.assert_array_equal(seen[1], np.ones(6))


def test_accumulation_that_would_change_a_loss_is_refused():
    assert made(Game(), accumulate=2)[0].accumulate == 2
    with pytest.raises(UserError, match=r"train.accumulate = 2 would change the loss of 'second'"):
        made(Game(second={"couples_rows": True}), accumulate=2)


# --- names and configs ----------------------------------------------------------------------------


def test_the_names_of_what_is_measured():
    assert by_name({"anything": {"loss": 1, "x": 2}}) == {"loss": 1, "x": 2}
    found = by_name({"critic": {"loss": 1, "x": 2}, "model": {"loss": 3, "gradient_norm": 4}})
    assert found == {
        "loss": 1, "loss_critic": 1, "x_critic": 2, "loss_model": 3, "gradient_norm_model": 4,
    }  # fmt: skip


TOY = "configs/toy_mixture.py:smoke"


def checked(**overrides):
    dotted = {k.replace("__", "."): v for k, v in overrides.items()}
    return check.check(config.override(config.load(TOY), dotted))


def test_a_player_has_its_own_keys_in_a_config():
    found = checked(optimizer__players__model__learning_rate="1", optimizer__clip="2.0")
    assert found.optimizer.players.to_dict() == {"model": {"learning_rate": 1.0}}
    with pytest.raises(UserError) as caught:
        checked(
            optimizer__players__model__learning_rte="1",
            optimizer__players__model__clip="-1",
            optimizer__players__model__decay="'lnear'",
            optimizer__players__critic="3",
        )
    text = "\n".join(caught.value.problems)
    assert "optimizer.players.model.learning_rte is not a known key" in text
    assert "optimizer.players.critic must be a section (a dict), not 3." in text
    with pytest.raises(UserError) as caught:
        checked(
            optimizer__players__model__clip="-1",
            optimizer__players__model__decay="'stages'",
            optimizer__players__model__stage_ends="(4,)",
        )
    assert list(caught.value.problems) == [
        "optimizer.players.model.clip = -1.0 must be at least 0.",
        "optimizer.players.model.stage_factors has 0 entries for 1 stage_ends: it must have one "
        "more.",
    ]
    stages = {"stage_ends": "(4,)", "stage_factors": "(1.0, 0.1)"}
    with pytest.raises(UserError, match=r"players.model.stage_ends = \(4,\) has no effect with"):
        checked(**{f"optimizer__players__model__{k}": v for k, v in stages.items()})
    # Shared stages are no error for a player with another decay.
    shared = {f"optimizer__{k}": v for k, v in stages.items()} | {"optimizer__decay": "stages"}
    found = checked(**shared, optimizer__players__model__decay="linear")
    assert found.optimizer.players.to_dict() == {"model": {"decay": "linear"}}


def test_an_unknown_player_stops_a_run_before_its_folder_is_made(tmp_path):
    wrong = checked(optimizer__players__critic__clip="1.0")
    with pytest.raises(UserError, match=r"optimizer.players.critic is not a player .* has model\."):
        mode.train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_of_a_player_may_change_in_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Workdir, "begun", True)
    config.write_json(tmp_path / "config.json", checked().to_dict())
    Workdir(tmp_path).check(checked(optimizer__players__model__learning_rate="1e-5"))
    with pytest.raises(UserError, match=r"optimizer.players.model.b1 is None there and 0.5 here"):
        Workdir(tmp_path).check(checked(optimizer__players__model__b1="0.5"))


def test_a_single_player_may_have_any_name():
    game = Line()
    optimizers = for_players(game.losses, DESCENT)
    updater = Updater(
        family=game, optimizers=optimizers, averages={}, prepare=lambda batch, key: batch,
        root=streams.root(0),
    )  # fmt: skip
    state = initial(game, optimizers, (), streams.root(0), {})
    _, sums = jax.jit(updater.update)(state, {"x": jnp.ones((2, 1, 1, 1))})
    assert set(sums) == {"loss", "positive", "gradient_norm", "learning_rate"}
