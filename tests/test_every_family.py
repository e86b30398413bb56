"""Properties that every family must have, tested for all of `FAMILIES`.

Each case is the `:smoke` variant of a config, made even smaller. Everything that a family can
compute is one compiled program, `outputs`, which the properties run on batches that differ in one
respect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core import streams
from genzoo.core.conditions import droppable, gather, without
from genzoo.core.contract import (
    Context,
    Decodes,
    Encodes,
    Family,
    Fits,
    Likelihoods,
    Observes,
    Reconstructs,
    Samples,
    Tokenizes,
    Variables,
    Weighted,
    conditions_of,
)
from genzoo.core.errors import UserError
from genzoo.core.latents import Compresses
from genzoo.evaluate.score import score_batch
from genzoo.experiment import Experiment, variables_of
from genzoo.families.quantisers import FiniteScalar
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.state import TrainState

CLASSES = 3
WORDS = 9  # the least vocabulary of a case with texts
# A data set of this name is never opened; only its shapes and classes are used.
OF_OWN_SHAPE = ("mixture", "swissroll", "waves", "shapes")
IMAGES = dict(name="tfds:none", size=8, channels=1, num_classes=CLASSES, flip=False)
TEXTS = dict(name="documents:none", words=("a", "b", "c", "d", "e", "f"), num_classes=CLASSES)


# --- conditions -----------------------------------------------------------------------------------


def always(family: Family, dropout: float) -> Family:
    """The family, with every condition dropped in training with this probability."""
    specs = {name: replace(spec, dropout=dropout) for name, spec in family.conditions.items()}
    return replace(family, conditions=specs)


def other_values(batch: Mapping, name: str, shift: int = 1) -> dict:
    """The batch, with another value of a field in every row."""
    changed = batch[name] + shift
    wrapped = {"label": CLASSES, "text": WORDS}
    return {**batch, name: changed % wrapped[name] if name in wrapped else changed}


def mistakes(family: Family, points: bool) -> list[tuple[dict, str]]:
    """Changes to a config that conflict with its conditions, each with its message."""
    if not conditions_of(family):
        return []
    cases = [(dict(conditions=dict(depth=dict())), "conditions.depth is not a field of the data")]
    if not points and "label" in conditions_of(family) and "frequency" not in conditions_of(family):
        none = dict(name="folder:none", size=8, labels=False, num_classes=0)
        cases.append((dict(data=none), "There is no folder none"))
    if not droppable(conditions_of(family)) or isinstance(family, Fits):
        return cases
    name = next(iter(conditions_of(family)))
    always = {k: dict(dropout=0.0) for k in conditions_of(family)}
    return [
        *cases,
        (dict(conditions={name: dict(dropout=1.0)}), "must be at least 0 and below 1"),
        (
            dict(conditions=always, sample=dict(guidance_scale=2.0)),
            "needs a condition that training sometimes drops",
        ),
        (
            dict(conditions=always, sample=dict(guidance_scale=1.0, guidance=((name, 2.0),))),
            f"names {name}, which training never drops",
        ),
        (dict(sample=dict(guidance=(("depth", 2.0),))), "'depth', which is not a condition"),
    ]


# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """path: of a config. changes: to it, by section. spread: whether random times are stratified
    over the batch, so that those of a row depend on the batch size. uncoupled: for a loss that
    couples the rows of a batch, the fields of the family with which it does not. still: the fields
    with which the draws depend on the data and not on the row. rounding: the relative rounding
    error of its outputs."""

    path: str
    changes: Mapping[str, Mapping] = field(default_factory=dict)
    spread: bool = False
    uncoupled: Mapping[str, object] = field(default_factory=dict)
    still: Mapping[str, object] = field(default_factory=dict)
    rounding: float = 2e-5

    @property
    def apart(self) -> bool:
        """Whether the rows of a batch have nothing to do with each other in training."""
        return not self.uncoupled


class Half:
    """One time for all."""

    def draw(self, key, count, schedule):
        return jnp.full(count, 0.5)


class Silent:
    """An observation model to which all data are alike: the loss is the KL alone."""

    def observe(self, x, noise):
        return x

    def inputs(self, x):
        return x

    def log_prob(self, params, output, x):
        return jnp.zeros_like(output)


def alone(a, b, *others):
    """An objective that does not compare examples."""
    return -(a * b).sum(-1)


TOLD = dict(conditions=dict(label=dict(dropout=0.1)))
# A class, a small copy of the image, and the image with a hole.
SEEN = dict(
    conditions=dict(
        label=dict(dropout=0.1),
        low=dict(of="x", transform="downsample2", dropout=0.2),
        hole=dict(of="x", transform="mask", dropout=0.2),
    )
)
# A class, and what else can be made of the image.
DRAWN = dict(
    conditions=dict(
        label=dict(dropout=0.1),
        blurred=dict(of="x", transform="blur1", dropout=0.2),
        edges=dict(of="x", transform="edges", dropout=0.2, together="sketch"),
        outline=dict(of="x", transform="outline", dropout=0.2, together="sketch"),
    )
)
SIDES = dict(network=dict(width=8, depth=2, heads=2, patch=4))
# What configs with a codebook set, as it is by default.
NO_CODEBOOK = dict(latent=64, kmeans=10, revive_below=0.0)
CASES = {
    "pca": Case(path="pca_fashion"),
    "pca_of_documents": Case(path="pca_documents", changes=dict(data=TEXTS)),
    "autoencoder": Case(path="dae_fashion", changes=dict(network=dict(widths=(8,)))),
    "autoencoder_of_documents": Case(
        path="ae_documents", changes=dict(data=TEXTS, network=dict(widths=(8,)))
    ),
    "vae": Case(path="vae_fashion", changes=dict(network=dict(widths=(8,)))),
    "vae_of_documents": Case(
        path="vae_documents",
        changes=dict(
            data=TEXTS, family=dict(latents=(3,)), network=dict(widths=(8,)),
            eval=dict(importance_samples=3),
        ),
    ),
    "vae_of_two_layers": Case(
        path="vae_fashion",
        changes=dict(
            family=dict(latents=(3, 2), decoder="bernoulli"),
            network=dict(widths=(8,), top_widths=(6,)),
            eval=dict(importance_samples=3),
        ),
    ),
    "vae_with_free_bits": Case(
        path="vae_fashion",
        changes=dict(family=dict(free_bits=0.335), network=dict(widths=(8,))),
        uncoupled=dict(free_bits=0.0),
        still=dict(observation=Silent()),
    ),
    "vae_on_a_grid": Case(
        path="vae_fashion",
        changes=dict(
            family=dict(latents=(2,)),
            network=dict(name="conv", width=8, block_width=4, blocks=1, downsamples=1),
        ),
    ),
    "kl_autoencoder": Case(
        path="kl_fashion",
        changes=dict(
            family=dict(perceptual="none", critic_after=0),
            network=dict(multipliers=(1,), critic_layers=1),
        ),
        uncoupled=dict(adversary=None),
        still=dict(sampled=False),
    ),
    "kl_autoencoder_without_a_critic": Case(
        path="kl_fashion",
        changes=dict(
            family=dict(perceptual="none", critic_weight=0.0, critic_after=50_001),
            network=dict(multipliers=(1,), critic_layers=3, critic_width=64),
        ),
    ),
    "vqvae": Case(path="vqvae_fashion"),
    "vqvae_by_gradient": Case(
        path="vqvae2_cifar",
        changes=dict(
            family=dict(codebook="gradient", codes=(6, 5), kmeans=10, revive_below=0.0),
            network=dict(downsamples=1),
        ),
    ),
    "vqgan": Case(
        path="vqgan_cifar",
        changes=dict(
            family=dict(critic_after=0), network=dict(multipliers=(1,), critic_layers=1)
        ),
        uncoupled=dict(adversary=None),
    ),
    "vqvae_of_steps": Case(
        path="vqvae_fashion",
        changes=dict(family=dict(codebook="fsq", steps=(3, 4), codes=(512,), **NO_CODEBOOK)),
    ),
    "vqvae_of_signs": Case(
        path="vqvae_fashion",
        changes=dict(family=dict(codebook="lfq", codes=(16,), **NO_CODEBOOK)),
        uncoupled=dict(quantiser=FiniteScalar(steps=(3, 3, 3, 3))),
    ),
    "dvae": Case(path="dvae_cifar", changes=dict(network=dict(groups=2))),
    "token_prior": Case(path="prior_vqvae_fashion"),
    "ddpm": Case(
        path="ddpm_fashion_cond",
        changes=dict(
            network=dict(width=8, patch=2, multipliers=(1,), attention=(), norm_groups=2),
            family=dict(
                variance="learned_range", objective="hybrid", step_distribution="loss_aware",
                prediction="eps",
            ),
            **SEEN,
        ),
    ),
    "score_sde": Case(
        path="toy_mixture",
        # So close to the data, the steps of a solver with a loose tolerance depend on rounding.
        changes=dict(family=dict(name="score_sde"), eval=dict(tolerance=1e-6), **TOLD),
        rounding=2e-4,
    ),
    "edm": Case(
        path="toy_mixture",
        changes=dict(sample=dict(method="edm"), eval=dict(tolerance=1e-6), **TOLD),
        rounding=2e-4,
    ),
    "edm_of_images": Case(
        path="edm_cifar",
        changes=dict(network=dict(width=8, patch=2, multipliers=(1,), attention=()), **DRAWN),
    ),
    "flow_matching": Case(path="toy_mixture", changes=TOLD),
    "flow_matching_of_signals": Case(
        path="toy_waves",
        changes=dict(
            network=dict(width=8, multipliers=(1,), attention=(), norm_groups=2),
            conditions=dict(
                label=dict(dropout=0.1, together="both"),
                frequency=dict(dropout=0.1, together="both"),
            ),
            eval=dict(tolerance=1e-6),
        ),
        rounding=2e-4,
    ),
    "flow_matching_of_texts": Case(
        path="fm_shapes",
        changes=dict(
            network=dict(width=4, patch=8, multipliers=(1,), norm_groups=2),
            eval=dict(tolerance=1e-6),
        ),
        rounding=2e-4,
    ),
    "flow_matching_of_copies": Case(
        path="sr_emoji",
        changes=dict(
            conditions=dict(text=dict(way="attend", layers=1, dropout=0.02, null=False)),
            eval=dict(tolerance=1e-6),
        ),
        rounding=2e-4,
    ),
    "flow_matching_of_encoded_texts": Case(
        path="fm_shapes",
        changes=dict(
            network=dict(name="dit", width=16, depth=1, heads=2, patch=8),
            # With 0.1 the coins of `KEY` would drop the text of the second row; with this, those of
            # the first steps drop none, so that a null would not be trained.
            conditions=dict(text=dict(through="text_encoder", dropout=0.02, null=False)),
            eval=dict(tolerance=1e-6),
        ),
        rounding=2e-4,
    ),
    "flow_matching_of_latents": Case(
        path="ldm_fashion", changes=dict(eval=dict(tolerance=1e-6)), rounding=2e-4
    ),
    "flow_matching_in_pairs": Case(
        path="toy_swissroll",
        changes=dict(family=dict(paired=True)),
        uncoupled=dict(paired=False),
        still=dict(times=Half()),
    ),
    "vdm": Case(
        path="vdm_cifar",
        changes=dict(
            data=dict(name="mixture"), network=dict(name="point_mlp", width=16, depth=1), **TOLD
        ),
        spread=True,
    ),
    "vdm_of_images": Case(
        path="vdm_cifar",
        changes=dict(network=dict(width=8, blocks=1, fourier=(1,)), **TOLD),
        spread=True,
    ),
    "ddpm_with_an_encoder": Case(
        path="dit_fashion",
        changes=dict(family=dict(align="encoder", align_block=1, align_width=8), **SIDES),
    ),
    "ddpm_with_its_average": Case(
        path="dit_fashion",
        changes=dict(
            family=dict(align="average", align_block=1, align_target=2, align_width=8), **SIDES
        ),
    ),
    "controlnet": Case(
        path="controlnet_fashion",
        changes=dict(
            family=dict(hint_widths=(2, 3), decoder=True),
            conditions=dict(
                hint=dict(of="x", transform="edges", way="control", dropout=0.2),
                **SEEN["conditions"],
            ),
        ),
    ),
    "cascade": Case(path="cascade_emoji"),
    "gan": Case(path="gan_fashion"),
    "mae": Case(path="mae_fashion"),
    "contrastive": Case(
        path="simclr_fashion",
        changes=dict(
            family=dict(area=1.0, mirror=0.0),
            network=dict(name="vit", width=8, depth=1, heads=2, patch=4),
        ),
        uncoupled=dict(objective=alone),
        still=dict(views=lambda images, key: images),
    ),
    "contrastive_of_texts": Case(
        path="clip_shapes",
        uncoupled=dict(objective=alone),
        still=dict(mask=lambda ids: ids > 0),
    ),
    "text_encoder": Case(path="text_minilm"),
    "classifier": Case(
        path="classifier_fashion",
        changes=dict(
            family=dict(noisy=True),
            network=dict(width=8, multipliers=(1,), attention=(), head_width=8, norm_groups=2),
        ),
    ),
}  # fmt: skip

# Cases with convolutional networks take several times as long as the same families on points.
SLOW = (
    "edm_of_images", "flow_matching_of_signals", "flow_matching_of_texts", "vdm_of_images",
    "ddpm_with_its_average", "flow_matching_of_latents", "controlnet", "cascade",
    "flow_matching_of_copies",
)  # fmt: skip


def settled(case: Case):
    """The case's resolved config."""
    raw = config.load(f"configs/{case.path}.py:smoke")
    own = {} if raw["data"]["name"] in OF_OWN_SHAPE else {"data": IMAGES}
    for changes in (own, case.changes):
        for section, values in changes.items():
            before = raw.get(section, {})
            if values.get("name", before.get("name")) != before.get("name"):
                before = {}
            raw[section] = {**before, **values}
    raw["train"]["averages"] = raw["train"].get("averages", {})
    stages = {"tokenizer": "vqvae"} if raw["family"]["name"] == "token_prior" else {}
    stages |= {"base": "ddpm"} if raw["family"]["name"] == "controlnet" else {}
    stages |= {"encoder": "mae"} if raw["family"].get("align") == "encoder" else {}
    stages |= {"first": "vae_on_a_grid"} if "space" in raw else {}
    if raw["family"]["name"] == "cascade":
        stages = {"base": "flow_matching_of_texts", "second": "flow_matching_of_copies"}
    if any(own.get("through") for own in raw.get("conditions", {}).values()):
        stages["text_encoder"] = "text_encoder"
    if stages:
        raw["frozen"] = {
            stage: dict(workdir="none", weights="raw", config=settled(CASES[first]).to_dict())
            for stage, first in stages.items()
        }
    return build.settled(check.check(raw))


class Made:
    """A family with variables away from their initial values, and all that it can compute."""

    def __init__(self, case: Case):
        self.case = case
        self.experiment = Experiment(settled(case))
        self.family = self.experiment.family
        self.specs = conditions_of(self.family)
        own = self.experiment.config.conditions
        self.fields = {own[name].of or name for name in self.specs}  # of its conditions
        read = self.fields | {build.FAMILIES[self.experiment.config.family.name].encodes}
        self.traces = 0
        self.where = jax.tree.map(lambda leaf: leaf.sharding, self.experiment.abstract_state)
        whole = self.experiment.placement.replicated
        self.update = jax.jit(self._update, out_shardings=(self.where, whole))
        self.outputs = jax.jit(partial(outputs, self.family, read))

    def _update(self, state: TrainState, batch: Mapping):
        self.traces += 1
        return self.experiment.updater(1).update(state, batch)

    @cached_property
    def state(self) -> TrainState:
        """The state after a first step, from params away from their initial values, many of which
        are zero."""
        state = self.experiment.new_state()
        if isinstance(self.family, Fits):
            batches = [self.prepared(self.stored(30, seed)) for seed in range(2)]
            params = self.family.fit(batches, jax.random.key(0)).params
            return replace(state, params=params, frozen=moved(state.frozen))
        params, averages, frozen = moved((state.params, state.averages, state.frozen))
        state = replace(state, params=params, averages=averages, frozen=frozen)
        return self.update(state, self.stored(4, 0))[0]

    @property
    def variables(self) -> Variables:
        """Its params, stats and frozen models."""
        return variables_of(self.state, "raw")

    def stored(self, count: int, seed: int) -> dict:
        """Random records in the stored format."""
        rng = np.random.default_rng(seed)

        def column(name, shape, dtype):
            if dtype == np.int32:
                return rng.integers(0, CLASSES, shape).astype(dtype)
            if dtype == np.uint16:
                return rng.integers(0, 4, shape).astype(dtype)
            if dtype == np.uint8:
                return rng.integers(0, 256, shape).astype(dtype)
            return rng.uniform(-1, 1, shape).astype(dtype)

        records = self.experiment.stored(count)
        return {k: jnp.asarray(column(k, v.shape, v.dtype)) for k, v in records.items()}

    def prepared(self, batch: Mapping) -> dict:
        """The batch as the family sees it."""
        return self.experiment.updater(1).prepare(batch, jax.random.key(0))

    def batch(self, count: int, seed: int = 1) -> dict:
        """Random records, as the family sees them."""
        return self.prepared(self.stored(count, seed))


def moved(tree):
    """Every float of the tree with noise added."""
    rng = np.random.default_rng(0)

    def move(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        noisy = np.asarray(leaf) + (0.2 * rng.normal(size=leaf.shape)).astype(leaf.dtype)
        return jax.device_put(noisy, leaf.sharding)

    return jax.tree.map(move, tree)


def outputs(family: Family, told, variables: Variables, batch, key, keys) -> dict:
    """All that the family can compute from a batch, [B, ...] each. told: the fields of its
    conditions, and the one that it encodes. key: for the losses, which draw for the whole batch.
    keys [B]: for the rest, one per example."""
    computed = {}
    for name, player in family.losses.items():
        for train in (True, False):
            context = Context(
                batch=batch, key=key, step=jnp.int32(3), stats=variables.stats,
                averages={"ema": variables.params}, frozen=variables.frozen, train=train,
            )  # fmt: skip
            values, aux = player.loss(variables.params, context)
            where = f"{name} in {'training' if train else 'evaluation'}"
            computed[f"loss: {where}"] = values
            for metric, value in aux.metrics.items():
                value = value.values if isinstance(value, Weighted) else value
                computed[f"metric: {metric} of {where}"] = value
    conditions = gather(conditions_of(family), batch, variables.frozen)
    data = {k: v for k, v in batch.items() if k == "x" or k in told}
    if isinstance(family, Samples):
        computed["sample"] = family.sample(variables, keys, conditions)
    if isinstance(family, Observes):
        computed["observe"] = family.observe(data, keys)
    if isinstance(family, Reconstructs):
        computed["reconstruct"] = family.reconstruct(variables, data, keys)
    if isinstance(family, Encodes):
        computed["encode"] = family.encode(variables, data, keys)
        if isinstance(family, Decodes):
            computed["decode"] = family.decode(variables, computed["encode"])
    if isinstance(family, Compresses):
        computed["mean"], computed["deviation"] = family.moments(variables, data)
        computed["decode_latents"] = family.decode_latents(variables, computed["mean"])
    if isinstance(family, Tokenizes):
        codes = family.codes(variables, data)
        computed |= {f"codes {level}": value for level, value in enumerate(codes)}
        computed["decode_codes"] = family.decode_codes(variables, codes)
    if isinstance(family, Likelihoods):
        likelihood = family.likelihood(variables, data, keys)
        computed["likelihood"] = likelihood.total
        computed |= {f"term: {name}": value for name, value in likelihood.terms.items()}
    return computed


@pytest.fixture(scope="module")
def made():
    """Name of a case -> its family, made at the first call."""
    kept: dict[str, Made] = {}

    def of(name: str) -> Made:
        if name not in kept:
            kept[name] = Made(CASES[name])
        return kept[name]

    return of


def every_case(*, where=lambda name, case: True):
    names = [name for name in CASES if where(name, CASES[name])]
    cases = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]
    return pytest.mark.parametrize("name", cases)


KEY = jax.random.key(5)


def keys_of(*indices: int):
    return streams.per_example(jax.random.key(6), jnp.asarray(indices))


def rows(batch: Mapping, *indices: int) -> dict:
    """Selects rows of a batch."""
    return {name: values[jnp.asarray(indices)] for name, values in batch.items()}


def assert_same(one: Mapping, other: Mapping, heading: str, rounding: float = 2e-5) -> None:
    """Fails with a list of all outputs that differ by more than rounding, which a flow from data to
    noise and back amplifies."""
    assert one.keys() == other.keys()
    differing = {}
    for name in one:
        a, b = np.asarray(one[name], np.float64), np.asarray(other[name], np.float64)
        gap = np.abs(a - b).max()
        if not gap <= (1e-3 if name == "reconstruct" else rounding) * max(np.abs(b).max(), 1):
            differing[name] = gap
    assert not differing, f"{heading}: {differing}"


# --- properties -----------------------------------------------------------------------------------


def test_every_family_has_a_case():
    assert {settled(case).family.name for case in CASES.values()} == set(build.FAMILIES)


@every_case()
def test_its_row_says_whether_it_is_fitted(made, name):
    m = made(name)
    assert build.FAMILIES[m.experiment.config.family.name].fitted == isinstance(m.family, Fits)


@every_case()
def test_everything_is_finite_and_one_for_each_example(made, name):
    m = made(name)
    computed = m.outputs(m.variables, m.batch(2), KEY, keys_of(0, 1))
    assert [k for k, v in computed.items() if v.shape[:1] != (2,)] == []
    assert [k for k, v in computed.items() if k.startswith("loss") and v.shape != (2,)] == []
    assert [k for k, v in computed.items() if not np.isfinite(v).all()] == []
    shape = m.experiment.shape
    images = ("sample", "observe", "reconstruct", "decode", "decode_codes", "decode_latents")
    assert [k for k in images if k in computed and computed[k].shape[1:] != shape] == []


@every_case(where=lambda name, case: case.apart)
def test_rows_do_not_see_each_other(made, name):
    m = made(name)
    ab, c = m.batch(2), m.batch(1, seed=2)
    ba = rows(ab, 1, 0)
    both = m.outputs(m.variables, ab, KEY, keys_of(0, 1))
    turned = m.outputs(m.variables, ba, KEY, keys_of(1, 0))
    # A loss draws noise by row, so another row has other noise. All else draws by key.
    by_key = {k for k in both if not k.startswith(("loss", "metric"))}
    own = {k: both[k] for k in by_key}
    assert_same(rows({k: turned[k] for k in by_key}, 1, 0), own, "turned round")
    beside = {k: jnp.concatenate([c[k], v[1:]]) for k, v in ab.items()}
    changed = m.outputs(m.variables, beside, KEY, keys_of(9, 1))
    assert_same(rows(changed, 1), rows(both, 1), "the second row, with another first")
    if m.case.spread:
        both, turned = own, {k: turned[k] for k in by_key}
    for batch, index, together in ((ab, 0, both), (ba, 1, turned)):
        alone = m.outputs(m.variables, rows(batch, 0), KEY, keys_of(index))
        alone = {k: alone[k] for k in together}
        assert_same(rows(together, 0), alone, f"row {index}, alone", m.case.rounding)


@every_case(where=lambda name, case: not case.apart)
def test_rows_that_are_coupled_may_stand_in_any_order(made, name):
    m = made(name)

    @partial(jax.jit, static_argnums=2)
    def losses(variables, batch, coupled):
        family = replace(m.family, **m.case.still, **({} if coupled else m.case.uncoupled))
        context = Context(batch=batch, key=KEY, step=jnp.int32(3), stats=variables.stats)
        return {k: own.loss(variables.params, context)[0] for k, own in family.losses.items()}

    batch, order = m.batch(5), (3, 0, 4, 1, 2)
    both = losses(m.variables, batch, True)
    turned = losses(m.variables, rows(batch, *order), True)
    for player, values in both.items():
        np.testing.assert_allclose(turned[player], values[jnp.asarray(order)], rtol=1e-5)
    # They are not the losses of rows that are not coupled.
    for player, values in losses(m.variables, batch, False).items():
        assert np.abs(values - both[player]).max() > 1e-3


@every_case()
def test_a_loss_that_couples_rows_says_so(made, name):
    m = made(name)
    coupled = [k for k, player in m.family.losses.items() if player.couples_rows]
    assert bool(coupled) != m.case.apart
    if coupled:
        with pytest.raises(UserError, match=r"train.accumulate = 2 would change the loss"):
            m.experiment.updater(2)


@every_case(where=lambda name, case: not case.apart)
def test_rows_that_are_coupled_do_not_see_the_padding(made, name):
    m = made(name)

    @jax.jit
    def measured(variables, batch):
        return score_batch(m.family, variables, batch, KEY, jnp.int32(3))["loss"]

    def of(batch):
        index = jnp.arange(len(batch["x"]))
        return measured(m.variables, {**batch, "mask": 1.0 * (index < 3), "index": index})

    batch = m.batch(3)
    alone = of(batch)
    for filling in (m.batch(5, seed=2)["x"], 0.0, jnp.nan):
        filling = jnp.broadcast_to(filling, (5, *m.experiment.shape))
        others = {**m.batch(5, seed=2), "x": filling}
        padded = {k: jnp.concatenate([v, others[k]]) for k, v in batch.items()}
        for metric, (total, weight) in of(padded).items():
            np.testing.assert_allclose(total, alone[metric][0], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(weight, alone[metric][1])


@every_case()
def test_every_condition_matters(made, name):
    m = made(name)
    batch, keys = m.batch(2), keys_of(0, 1)
    before = m.outputs(m.variables, batch, KEY, keys)
    for condition in sorted(m.fields - {"x"}):
        gaps: dict = {}
        for shift in range(1, CLASSES):
            after = m.outputs(m.variables, other_values(batch, condition, shift), KEY, keys)
            for output in after:
                trained = output.startswith("loss") and not isinstance(m.family, Fits)
                if trained or output in ("sample", "likelihood"):
                    gap = np.abs(after[output] - before[output]).reshape(2, -1).max(1)
                    gaps[output] = np.maximum(gaps.get(output, 0), gap)
        # Drawn codes may be equal by chance, so one differing row is enough.
        deaf = [k for k, v in gaps.items() if (v.max() if k == "sample" else v.min()) < 1e-5]
        assert not deaf, f"{condition} changes nothing in {deaf}"
    targets = {"label"} if build.FAMILIES[m.experiment.config.family.name].labelled else set()
    targets |= set(getattr(build.family_settings(m.experiment.config), "fields", ()))
    for other in batch.keys() - {"x", *m.fields} - targets:  # fields that the model does not use
        after = m.outputs(m.variables, other_values(batch, other), KEY, keys)
        assert_same(after, before, f"{other}, which is not a condition")


DENOISING = (
    "ddpm", "score_sde", "edm", "edm_of_images", "flow_matching", "flow_matching_of_encoded_texts",
    "vdm", "vdm_of_images", "controlnet",
)  # fmt: skip


@every_case(where=lambda name, case: name in DENOISING)
def test_an_absent_condition_is_the_null_whatever_its_value(made, name):
    m = made(name)
    assert droppable(m.specs) == tuple(m.specs) != ()
    batch = m.batch(2)

    def loss(family, batch):
        stats, params = m.variables.stats, m.variables.params
        context = Context(
            batch=batch, key=KEY, step=jnp.int32(3), stats=stats, frozen=m.variables.frozen,
            train=True,
        )  # fmt: skip
        return family.losses["model"].loss(params, context)[0]

    @jax.jit
    def losses(batch):
        families = always(m.family, 0.0), always(m.family, 1.0), replace(m.family, conditions={})
        return [loss(family, batch) for family in families]

    @jax.jit
    def predicted(conditions, scale):
        x = jnp.ones((2, *m.experiment.shape)) / 3
        return m.family.predictor(m.variables, conditions, scale)(x, jnp.float32(0.4)).x_0

    present, hidden, null = losses(batch)
    assert np.abs(present - null).min() > 1e-5
    assert_same({"loss": hidden}, {"loss": null}, "hidden in training")
    frozen = m.variables.frozen
    conditions = gather(m.specs, batch, frozen)
    nothing = predicted({}, 1.0)
    off, one, two = (predicted(conditions, scale) for scale in (0.0, 1.0, 2.0))
    assert_same({"x_0": off}, {"x_0": nothing}, "guidance by 0 is unconditional")
    assert np.abs(one - nothing).max() > 1e-4 and np.abs(two - one).max() > 1e-4
    for name in sorted(m.fields):
        other = gather(m.specs, other_values(batch, name), frozen)
        assert np.abs(predicted(other, 1.0) - one).max() > 1e-4
        hidden = without(other, m.specs)
        assert_same({"x_0": predicted(hidden, 1.0)}, {"x_0": nothing}, f"{name}, absent")


@every_case()
def test_bad_conditions_are_refused(made, name):
    m = made(name)
    raw = m.experiment.config.to_dict()
    for changes, message in mistakes(m.family, points=len(m.experiment.shape) == 1):
        changed = {**raw, **{k: {**raw[k], **v} for k, v in changes.items()}}
        if "conditions" in changes:  # merges the changed keys into each condition
            own = raw["conditions"]
            merged = {k: {**own.get(k, {}), **v} for k, v in changes["conditions"].items()}
            changed["conditions"] = {**own, **merged}
        with pytest.raises(UserError) as caught:
            build.settled(check.check(changed))
        assert any(message in problem for problem in caught.value.problems), caught.value.problems


@every_case()
def test_training_is_one_program_that_moves_every_param_and_resumes_exactly(
    made, name, tmp_path
):
    m = made(name)
    if isinstance(m.family, Fits):
        assert m.experiment.optimizers == {}
        return
    batches = [m.stored(4, seed) for seed in range(10, 14)]
    straight = start = m.state
    for i, batch in enumerate(batches):
        straight, sums = m.update(straight, batch)
        assert np.isfinite(sums["loss"][0])
        if i == 1:
            checkpoints = Checkpoints(directory=tmp_path)
            checkpoints.save(straight)
            checkpoints.close()
    assert int(straight.step) == int(start.step) + 4 and int(straight.faults.total) == 0
    still = [
        jax.tree_util.keystr(path)
        for (path, after), before in zip(
            jax.tree_util.tree_leaves_with_path(straight.params),
            jax.tree.leaves(start.params),
            strict=True,
        )
        if np.array_equal(after, before)
    ]
    assert still == [], f"params that training does not move: {still}"
    chex.assert_trees_all_equal(straight.frozen, start.frozen)
    checkpoints = Checkpoints(directory=tmp_path)
    resumed = checkpoints.restore(m.experiment.abstract_state)
    checkpoints.close()
    resumed = replace(resumed, frozen=start.frozen)  # written once, apart from checkpoints
    for batch in batches[2:]:
        resumed, _ = m.update(resumed, batch)
    chex.assert_trees_all_equal(resumed, straight)
    assert m.traces == 1
