"""Configs: defaults, overrides, and every mistake reported at once, by name and with a remedy."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_smoke import ONE_OF_A_KIND

from genzoo import build, check, config, runs
from genzoo.builders import ddpm, sampling
from genzoo.builders.rows import INSIDE, THROUGH
from genzoo.core import tree
from genzoo.core.bounds import settings_of
from genzoo.core.conditions import gather
from genzoo.core.contract import (
    Context,
    Likelihoods,
    Reconstructs,
    Samples,
    Variables,
    conditions_of,
)
from genzoo.core.errors import UserError
from genzoo.data.packages import PACKAGES
from genzoo.experiment import Experiment, sample_keys
from genzoo.settings import FrozenSettings

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
CIFAR = "configs/ddpm_cifar.py"


def variants(file: Path) -> list[str]:
    spec = importlib.util.spec_from_file_location("config_file", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return ["", *module.VARIANTS]


EVERY = [f"configs/{file.name}:{name}" for file in CONFIGS for name in variants(file)]


def checked(path: str, **overrides: str):
    dotted = {k.replace("__", "."): v for k, v in overrides.items()}
    return check.check(config.override(config.load(path), dotted))


def problems(path: str, **overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        checked(path, **overrides)
    return list(caught.value.problems)


# The models of the workdirs that are not called as their configs.
MODELS = {
    "emoji_16": ("fm_emoji.py:laptop", dict(data__size="16", network__patch="1")),
    "emoji_32": ("sr_emoji.py:laptop", {}),
    "emoji_64": ("sr_emoji.py:large", {}),
}
WORDS = dict(words=("red", "heart"), tokens=11)  # of emoji, known once they have been fetched


def with_stages(path: str, workdir: Path):
    """The resolved config, with a workdir that holds a config for each frozen model."""
    raw, (_, _, variant) = config.load(path), path.partition(":")
    if package := PACKAGES.get(raw["data"].get("tokenizer", "")):
        if not package.installed:
            pytest.skip(f"needs {package.install}")
        raw["data"]["tokens"] = 11
    elif raw["data"]["name"] == "emoji":
        raw["data"] |= WORDS
    for name, stage in raw.get("frozen", {}).items():
        called = Path(stage["workdir"]).name
        same = variant if f"configs/{called}.py:{variant}" in EVERY else ""
        theirs, changes = MODELS.get(called, (f"{called}.py:{same}", {}))
        known = {f"data__{k}": str(v) for k, v in WORDS.items()} if called in MODELS else {}
        stored = checked(f"configs/{theirs}", **changes, **known)
        config.write_json(workdir / name / "config.json", stored.to_dict())
        stage["workdir"] = str(workdir / name)
    return runs.resolve(check.check(raw), None)


@pytest.mark.parametrize("path", EVERY)
def test_every_config_is_sound(path, tmp_path):
    Experiment(with_stages(path, tmp_path))


def assert_size_is_known_beforehand(config, state):
    """The size in closed form is never below the exact one, and hardly above it."""
    size, count, stats = build.size(config), tree.count(state.params), tree.count(state.stats)
    assert count <= size.params <= 1.01 * count
    assert stats <= size.stats <= 1.01 * stats


PUBLISHED = {
    "ddpm_cifar": 35_746_307, "ddpm_lsun256": 113_673_219, "sde_ve_cifar": 62_758_787,
    "jit_imagenet256": 131_123_712, "text_minilm": 22_565_376, "dit_imagenet256": 674_834_720,
}  # fmt: skip


@pytest.mark.parametrize("name", [file.stem for file in CONFIGS])
def test_params_of_every_config_work_out_and_are_as_many_as_published(name, tmp_path):
    experiment = Experiment(with_stages(f"configs/{name}.py", tmp_path))
    state = experiment.abstract_state
    count = tree.count(state.params)
    assert count > 1000 or name == "cascade_emoji"  # whose params are all frozen
    assert count == PUBLISHED.get(name, count)
    assert_size_is_known_beforehand(experiment.config, state)


def few_traced(path: str):
    """The path, marked slow unless it is a smoke variant that test_smoke.py does not run."""
    name, _, variant = path.removeprefix("configs/").partition(".py:")
    traced = variant == "smoke" and name not in ONE_OF_A_KIND
    return path if traced else pytest.param(path, marks=pytest.mark.slow)


@pytest.mark.parametrize("path", map(few_traced, EVERY))
def test_shapes_of_every_config_work_out(path, tmp_path):
    experiment = Experiment(with_stages(path, tmp_path))
    state = experiment.abstract_state
    assert tree.count(state.params) > 1000 or "cascade_emoji" in path
    assert_size_is_known_beforehand(experiment.config, state)
    count = experiment.config.train.batch_size
    context = Context(
        batch=experiment.example(count),
        key=experiment.root,
        step=state.step,
        stats=state.stats,
        frozen=state.frozen,
    )
    for player in experiment.family.losses.values():
        values, _ = jax.eval_shape(player.loss, state.params, context)
        assert values.shape == (count,)
    if path.endswith(":smoke"):
        traced_modes(experiment)


def traced_modes(experiment: Experiment) -> None:
    """Traces what the modes would compile, with shapes only."""
    family, state, rows = experiment.family, experiment.abstract_state, experiment.example(4)
    variables = Variables(params=state.params, stats=state.stats, frozen=state.frozen)
    keys = jax.eval_shape(lambda: sample_keys(0, jnp.arange(4)))
    specs = conditions_of(family)

    def sample(variables, rows, keys):
        return family.sample(variables, keys, gather(specs, rows, variables.frozen))

    def likelihood(variables, rows, keys):
        return family.likelihood(variables, rows, keys).total

    for protocol, function, shape in (
        (Samples, sample, rows["x"].shape),
        (Likelihoods, likelihood, (4,)),
        (Reconstructs, lambda *given: family.reconstruct(*given), rows["x"].shape),
    ):
        if isinstance(family, protocol):
            assert jax.eval_shape(function, variables, rows, keys).shape == shape


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.name)
def test_every_config_says_how_it_is_run_and_has_a_smoke_variant(file):
    text = file.read_text()
    assert f"python -m genzoo.main --config=configs/{file.name}" in text
    assert "smoke" in variants(file)


def test_defaults_are_filled_in_and_frozen():
    resolved = checked(CIFAR)
    assert resolved.sample.eta == 0.0 and resolved.mesh.fsdp == 1
    assert resolved.train.fault_limit == 10
    with pytest.raises(AttributeError):
        resolved.train.steps = 3


def test_resolved_json_loads_back_to_the_same(tmp_path):
    resolved = checked(f"{CIFAR}:smoke")
    config.write_json(tmp_path / "config.json", resolved.to_dict())
    again = check.check(config.load(str(tmp_path / "config.json")))
    assert again.to_dict() == resolved.to_dict()


def test_overrides_take_the_type_of_the_key():
    resolved = checked(
        CIFAR,
        train__steps="30",
        optimizer__learning_rate="1",
        network__multipliers="1,2",
        network__attention="(16,)",
        data__flip="false",
        train__averages__ema__decay="0.5",
    )
    assert resolved.train.steps == 30 and resolved.optimizer.learning_rate == 1.0
    assert resolved.network.multipliers == (1.0, 2.0) and resolved.data.flip is False
    assert resolved.train.averages.ema.decay == 0.5


def test_a_misspelt_name_does_not_make_its_keys_wrong():
    (problem,) = problems(CIFAR, data__name="cifar1", data__size="64")
    assert "did you mean 'cifar10'?" in problem


def test_all_problems_come_at_once():
    messages = problems(
        CIFAR,
        trian__steps="3",
        train__stepz="4",
        network__heads="3",
        sample__steps="2000",
        train__accumulate="7",
    )
    text = "\n".join(messages)
    assert len(messages) == 5
    assert "trian is not a known section: did you mean 'train'?" in text
    assert "train.stepz is not a known key: did you mean 'steps'?" in text
    assert "network.heads is 3, which does not divide" in text
    assert "sample.steps = 2000" in text and "allows 1 to 1000" in text
    assert "train.batch_size = 128 is not divisible by train.accumulate = 7" in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train__batch_size": "15.5"}, "train.batch_size = 15.5 must be a whole number."),
        ({"data__flip": "maybe"}, "data.flip = 'maybe' must be True or False."),
        ({"network__multipliers": "wide"}, "must be a tuple of numbers."),
        ({"network__multipliers": 2.5}, "numbers: one alone is followed by a comma, (2.5,)."),
        ({"family__name": "ddmp"}, "family.name = 'ddmp' is unknown: did you mean 'ddpm'?"),
        ({"family__schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"data__name": "cifar11"}, "data.name = 'cifar11' is unknown: did you mean 'cifar10'?"),
        ({"data__name": "folder:x"}, "data.size must be given for folder"),
        ({"data__name": "floder:x", "data__size": "32"}, "write folder:PATH or signals:PATH or"),
        (
            {"data__name": "folder:x", "data__size": "32", "data__tokenizer": "bytes",
             "data__words": "('a',)"},
            "data.words has no effect with data.tokenizer = 'bytes': leave it empty",
        ),
        (
            {"data__name": "folder:x", "data__size": "32", "data__num_classes": "3",
             "data__classes": "('a','b')"},
            "data.num_classes = 3, but data.classes names 2: leave data.num_classes at 0",
        ),
        (
            {"data__name": "fashion_mini", "data__dir": "here"},
            "data.dir = 'here' has no effect with data.name = 'fashion_mini'",
        ),
        ({"network__multipliers": "(1,1,1,1,1,1,1)"}, "must be divisible by 64; 32 x 32 is not"),
        ({"network__width": "34", "network__heads": "3"}, "does not divide the"),
        ({"network__dtype": "float16"}, "network.dtype = 'float16' is unknown"),
        ({"train__steps_per_call": "7"}, "is not a multiple of train.steps_per_call = 7"),
        (
            {"train__steps": "30", "train__save_every": "18", "train__steps_per_call": "7"},
            "train.steps_per_call = 7: set it to 35, or train.steps_per_call to 6.",
        ),
        ({"train__batch_size": "0"}, "train.batch_size = 0 must be at least 1."),
        ({"sample__method": "dimm"}, "did you mean 'ddim'?"),
        ({"sample__grid": "quadratic", "sample__steps": "1"}, "start from pure noise at step 1"),
        ({"sample__weights": "emma"}, "did you mean 'ema'?"),
        ({"sample__guidance_scale": "2.0"}, "needs a condition that training sometimes drops"),
        ({"conditions__label__dropout": "1"}, "dropout = 1.0 must be at least 0 and below 1."),
        ({"conditions__labl__dropout": "0.1"}, "conditions.labl is not a field of the data"),
        ({"conditions__label__way": "concat"}, "not possible for a class: use 'add' or 'attend'"),
        ({"conditions__x__dropout": "0.1"}, "conditions.x is x itself"),
        (
            {"conditions__small__of": "x", "conditions__small__transform": "downsample3"},
            "'downsample3' is unknown",
        ),
        ({"family__variance": "learned_range"}, "gets no gradient from"),
        ({"family__objective": "hybrid"}, "trains a learned variance"),
        ({"eval__bound_steps": "1000"}, "eval.bound_steps = 1000 must be between 0"),
        ({"train__averages__ema__decay": "2"}, "train.averages.ema.decay = 2.0 must be"),
        ({"optimizer__b2": "1.5"}, "optimizer.b2 = 1.5 must be at least 0 and below 1."),
        ({"optimizer__eps": "-1"}, "optimizer.eps = -1.0 must be above 0."),
        ({"optimizer__learning_rate": "1e999"}, "learning_rate = inf must be a finite number."),
        ({"bench__sample_steps": "0"}, "bench.sample_steps = 0 must be at least 1."),
        ({"seed": "-1"}, "seed = -1 must be at least 0 and at most"),
        ({"eval__split": "valid"}, "eval.split = 'valid' is unknown"),
        ({"train": "3"}, "train must be a section (a dict), not 3."),
        ({"sample__eta": "1.5"}, "sample.eta = 1.5 must be between 0"),
        ({"optimizer__decay": "cosin"}, "did you mean 'cosine'?"),
        ({"mesh__fsdp": "3"}, "mesh.fsdp = 3 does not divide the 1 devices."),
        ({"mesh__data": "4"}, "is not the number of devices, 1"),
        ({"family__steps": "1"}, "family.steps = 1 must be at least 2."),
        ({"bench__sample_steps": "1001"}, "bench.sample_steps = 1001 with sample.grid"),
        ({"family__p2_k": "2"}, "family.p2_k = 2.0 has no effect with family.weighting"),
        ({"family__min_snr_gamma": "0"}, "family.min_snr_gamma = 0.0 must be above 0."),
        ({"family__objective": "vlb", "family__weighting": "p2"}, "family.weighting = 'p2' has no"),
        ({"sample__eta": "0.5"}, "with sample.method = 'ancestral': leave it at 0.0, or "
         "choose a method that uses it ('ddim')."),
        ({"sample__method": "heun", "sample__churn": "3"}, "sample.churn = 3.0 has no effect"),
        ({"sample__rho": "5"}, "sample.rho = 5.0 has no effect with sample.grid = 'uniform'"),
        ({"sample__method": "rk45", "sample__shift": "2"}, "sample.shift = 2.0 has no effect"),
        ({"sample__tolerance": "1e-3"}, "choose a method that uses it ('rk45')."),
        ({"sample__guide_weights": "ema"}, "has no effect without sample.guide: "),
        ({"sample__classifier_scale": "2"}, "has no effect without sample.classifier: "),
        ({"data__size": "64"}, "data.size = 64 has no effect with data.name = 'cifar10'"),
        ({"data__name": "tfds:x", "data__size": "32", "data__labels": "false"}, "data.labels ="),
        ({"optimizer__stage_ends": "(3,)"}, "optimizer.stage_ends = (3,) has no effect"),
        ({"sample__guidance": "(('label', 4.0))"}, "(('label', 4.0),)"),
        ({"optimizer__decay_biases": "False"}, "optimizer.decay_biases = False has no effect"),
        ({"network__width": "16", "network__attention": "()"}, "removes the time"),
    ],
)
def test_each_mistake_has_its_sentence(overrides, words):
    assert words in "\n".join(problems(CIFAR, **overrides))


def test_a_wrong_type_does_not_hide_the_rest():
    messages = problems(CIFAR, sample__count="0", sample__npz="7", network__heads="3")
    assert len(messages) == 3


def test_a_number_may_name_a_folder():
    assert checked(CIFAR, data__dir="2024").data.dir == "2024"


def test_a_missing_key_is_named():
    raw = config.load(CIFAR)
    del raw["train"]["steps"], raw["data"]["name"]
    with pytest.raises(UserError, match=r"train.steps must be given.|data.name must be given."):
        check.check(raw)


def test_batch_must_divide_the_devices(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    messages = problems(CIFAR, mesh__data="-1")
    assert "train.batch_size = 128 is not divisible by the 3 devices of the mesh." in messages


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("def get_config(:", "the file raises SyntaxError"),
        ("def get_config(variant):\n    return 1 / 0", "division by zero (line 2"),
        ("import numpy\ndef get_config(v): 1 / 0", "ZeroDivisionError"),
        ("x = 1", "has no attribute 'get_config'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, words):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as caught:
        config.load(str(file))
    assert words in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize("variant", ["", ":laptop"])
def test_a_config_is_found_by_its_name(variant, tmp_path, monkeypatch):
    expected = config.load(f"configs/ddpm_fashion.py{variant}")
    for name in ("ddpm_fashion", "configs/ddpm_fashion", "ddpm_fashion.py"):
        assert config.load(name + variant) == expected
    monkeypatch.chdir(tmp_path)  # without a folder configs/
    assert config.load(f"ddpm_fashion{variant}") == expected
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text("def get_config(v): 1 / 0")
    with pytest.raises(UserError, match="the file raises ZeroDivisionError"):
        config.load(f"mine{variant}")
    with pytest.raises(UserError, match=r"no such file\. Did you mean 'mine'"):
        config.load(f"mime{variant}")


def test_every_key_is_documented():
    documented = check.documented(checked(CIFAR))
    assert documented["family.steps"] == {
        "type": "int", "bounds": "at least 2 and at most 10000", "default": 1000,
        "about": "Steps T of the table.",
    }  # fmt: skip
    assert documented["optimizer.b2"]["bounds"] == "at least 0 and below 1 and at most 0.9999999"
    assert documented["family.schedule"]["choices"] == sorted(ddpm.SCHEDULES)
    assert documented["network.multipliers"]["type"] == "tuple[float, ...]"
    assert documented["network.multipliers"]["bounds"] == (
        "a tuple with 1 to 16 entries and each above 0 and each at most 1000"
    )
    assert "default" not in documented["data.name"] and "default" not in documented["family.name"]
    assert documented["train.averages"]["type"] == "section"
    assert documented["train.averages.NAME.decay"]["default"] == 0.9999
    assert json.loads(json.dumps(documented)) is not None


@pytest.mark.parametrize("path", EVERY)
def test_the_keys_of_every_config_are_those_documented_each_with_a_sentence(path):
    resolved = checked(path)
    documented = check.documented(resolved)
    for key, entry in documented.items():
        assert entry["about"].endswith("."), key
    values = {
        f"{section}.{key}": value
        for section, keys in resolved.items()
        if section not in ("seed", "frozen", "conditions")
        for key, value in keys.items()
    }
    row = build.FAMILIES[resolved.family.name]
    possible = {*row.of_role("frozen"), *(THROUGH if row.conditional else ())}
    possible |= set(INSIDE if row.latent else ())
    expected = {"seed", "conditions", *values} | {
        f"frozen.{name}.{key}" for name in possible for key in settings_of(FrozenSettings)
    }
    listed = {key for key in documented if ".NAME." not in key}  # the user chooses these names
    assert listed == expected


def test_a_condition_that_is_no_section_is_refused():
    raw = config.load("configs/fm_shapes.py:smoke")
    raw["conditions"] = {"text": 3}
    with pytest.raises(UserError, match="text must be a section"):
        check.check(raw)


def test_an_unknown_variant_is_named():
    with pytest.raises(UserError, match="no variant 'smok': did you mean 'smoke'"):
        config.load(f"{CIFAR}:smok")


def test_an_override_needs_a_value():
    assert config.parse_overrides(["--config.a.b=1", "--config.c", "2"]) == {"a.b": "1", "c": "2"}
    with pytest.raises(UserError, match=r"'seed=3' is not understood"):
        config.parse_overrides(["seed=3"])
    with pytest.raises(UserError, match=r"--config.train.steps has no value"):
        config.parse_overrides(["--config.train.steps", "--config.seed=1"])


def test_differences_are_by_dotted_key():
    changed = config.differences({"a": {"b": 1, "c": (1, 2)}, "d": 1}, {"a": {"b": 2, "c": [1, 2]}})
    assert changed == {"a.b": (1, 2), "d": (1, None)}


def test_the_constants_of_a_weighting_are_settings():
    schedule, t = ddpm.SCHEDULES["linear"](1000), np.linspace(0.1, 0.9, 5)
    snr = np.exp(np.asarray(schedule.logsnr(t), np.float64))
    own = {"family__weighting": "min_snr", "family__min_snr_gamma": "0.5"}
    chosen = build.family(checked(f"{CIFAR}:smoke", **own)).weighting
    np.testing.assert_allclose(chosen.weight(schedule, t), np.minimum(1, 0.5 / snr), rtol=1e-5)
    own = {"family__weighting": "p2", "family__p2_gamma": "0.5", "family__p2_k": "3"}
    chosen = build.family(checked(f"{CIFAR}:smoke", **own)).weighting
    np.testing.assert_allclose(chosen.weight(schedule, t), (3 + snr) ** -0.5, rtol=1e-5)


def test_every_name_of_the_table_builds():
    raw = config.load(f"{CIFAR}:smoke")
    for key, table in {
        "schedule": ddpm.SCHEDULES, "prediction": ddpm.PREDICTIONS,
        "weighting": ddpm.WEIGHTINGS, "step_distribution": ddpm.STEP_DISTRIBUTIONS,
    }.items():  # fmt: skip
        for name in table:
            assert build.family(checked(f"{CIFAR}:smoke", **{f"family__{key}": name}))
    tables = {
        "method": (*sampling.METHODS, sampling.ADAPTIVE), "grid": sampling.GRIDS,
        "clip": sampling.CLIPPINGS,
    }  # fmt: skip
    for key, table in tables.items():
        for name in table:
            assert build.family(checked(f"{CIFAR}:smoke", **{f"sample__{key}": name}))
    assert raw["family"]["name"] in build.FAMILIES
