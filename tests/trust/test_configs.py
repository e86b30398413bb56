"""Hostile values in configs: each ends in a sentence, at once, whatever it is and wherever it
stands; and no size that a config asks for reaches a tracer or an allocator unseen."""

import argparse
import time
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import jax
import pytest
from hostile import deep, inputs

from genzoo import api, build, check, config, main, needs
from genzoo.builders.conditions import ConditionSettings
from genzoo.core import plain
from genzoo.core.bounds import Entries, settings_of
from genzoo.core.contract import Context
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.runtime import memory, topology
from genzoo.settings import SECTIONS, FrozenSettings, RunSettings
from genzoo.train.averages import Average

DDPM, EDM, VAE, VQ = "ddpm_cifar", "edm_cifar", "vae_cifar", "vqvae_cifar"
GIB = 2**30


def checked(path: str, **changes: object):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return check.check(config.override(config.load(path), dotted), 1)


def outcome(read, raw: dict, key: str, value: object) -> tuple[str, float]:
    """How a check of the config with this value ends, and its seconds of processor time."""
    start = time.process_time()
    try:
        read(config.override(raw, {key: value}))
        how = "accepted"
    except UserError as error:
        assert error.problems and all(1 < len(p) < 2000 for p in error.problems), key
        how = "refused"
    return how, time.process_time() - start


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_value_in_any_field_is_accepted_or_refused_at_once(count, tried):
    ends, slow = Counter(), []
    for raw, key, value in inputs(count):
        for read in (lambda raw: check.check(raw, 1), check.fill):
            how, seconds = outcome(read, raw, key, value)
            if seconds > 0.2:  # unless it compiled something for the first time
                how, seconds = outcome(read, raw, key, value)
            slow += [(key, round(seconds, 2))] * (seconds > 0.2)
        ends[how] += 1
    for how, times in ends.items():
        tried("values in fields of configs", how, times)
    assert sum(ends.values()) == count and ends["refused"] > count / 2
    assert not slow


# --- what was once a traceback, or accepted ------------------------------------------------------

NONSENSE = [
    (DDPM, {"train.steps": "9" * 400}, "train.steps is a whole number beyond 2^63"),
    (DDPM, {"data.hold": "9" * 400}, "data.hold is a whole number beyond 2^63"),
    (DDPM, {"data.hold": 10**5000}, "data.hold is a whole number beyond 2^63"),
    (DDPM, {"family.name": ["ddpm"]}, "family.name = ['ddpm'] is unknown"),
    (DDPM, {"network.name": {"a": 1}}, "network.name = {'a': 1} is unknown"),
    (DDPM, {"family": [1]}, "family must be a section (a dict), not [1]."),
    (DDPM, {"data.columns": "(('a', 1e999, 1),)"}, "data.columns = inf must be a finite number."),
    (DDPM, {"network.multipliers": (1.0, float("nan"))}, "multipliers = nan must be a finite"),
    (DDPM, {"optimizer": {1: 2}}, "optimizer has a key of type int: keys must be names"),
    (DDPM, {"sample.conditions": {"a": {None: 2}}}, "sample.conditions.a has a key of type None"),
    (DDPM, {"train.averages": {"__class__": {}}}, "train.averages has the key '__class__'"),
    (DDPM, {"train.steps": object()}, "train.steps holds a value of type object"),
    (DDPM, {"sample.conditions": {"a": deep(list)}}, "sample.conditions.a is nested more than 32"),
    (DDPM, {"sample": deep(dict)}, "is nested more than 32 deep"),
    (DDPM, {"train.steps": [0] * 200_000}, "more than 150000 entries, 200000 of them in train.st"),
    (DDPM, {"train.steps": "-" * 60_000}, "train.steps is a text of 60000 characters"),
    (DDPM, {"train.steps": "-" * 6_000 + "1"}, "must be a whole number."),
    (DDPM, {"train.steps": "(" * 6_000}, "must be a whole number."),
    (DDPM, {"train.steps": "10**12"}, "train.steps = '10**12' must be a whole number."),
    (DDPM, {"data.dir": "\0"}, "data.dir = '\\x00' has a character that is no text"),
    (DDPM, {"mesh.rules": (("(" * 5000, "largest"),)}, "is not a regular expression"),
    (DDPM, {"mesh.rules": (("a{99999999999}", "largest"),)}, "is not a regular expression"),
    (DDPM, {"mesh.rules": (("a", "9" * 5000),)}, "is unknown for 'a'"),
    *(
        (path, {key: size}, f"{key} = {size} must be at")
        for path, key in (
            (DDPM, "train.steps"), (DDPM, "network.width"), (DDPM, "network.blocks"),
            (DDPM, "train.batch_size"), (DDPM, "eval.batch_size"), (DDPM, "sample.count"),
            (DDPM, "sample.steps"), (DDPM, "train.picture_count"), (DDPM, "train.fault_limit"),
            (DDPM, "train.steps_per_call"), (DDPM, "mesh.fsdp"), (DDPM, "data.channels"),
            (VAE, "family.samples"), (VAE, "eval.importance_samples"),
            (VQ, "family.latent"), (VQ, "network.downsamples"), (VQ, "network.levels"),
        )
        for size in (10**12, 10**18)
    ),
    (EDM, {"family.noise_mean": "1e999"}, "family.noise_mean = inf must be a finite number."),
    (EDM, {"family.noise_mean": 1e30}, "noise_mean = 1e+30 must be between -20 and 20."),
    (DDPM, {"optimizer.eps": 1e30}, "optimizer.eps = 1e+30 must be between 1e-16 and 1."),
    (DDPM, {"optimizer.clip": 1e-300}, "optimizer.clip = 1e-300 is 0 in float32"),
    (DDPM, {"optimizer.clip": 1e-30}, "must be 0 (no clipping) or between 1e-06 and"),
    (DDPM, {"train.averages.ema.decay": 1.0}, "ema.decay = 1.0 must be at least 0 and below 1."),
    (DDPM, {"train.averages.ema.decay": 1 - 1e-12}, "must be at most 0.9999999."),
    (DDPM, {"optimizer.b2": 1 - 1e-12}, "must be at most 0.9999999."),
    (DDPM, {"data.resize": "shrink"}, "data.resize = 'shrink' is unknown"),
    (DDPM, {"data.resize": "stretch"}, "data.resize = 'stretch' has no effect with data.name"),
]  # fmt: skip


def brief(case: object) -> str | None:
    return ".".join(case) if isinstance(case, Mapping) else case if case in (DDPM, EDM) else ""


@pytest.mark.parametrize(("path", "changes", "words"), NONSENSE, ids=brief)
def test_nonsense_is_refused_by_name(path, changes, words):
    with pytest.raises(UserError) as caught:
        checked(path, **changes)
    text = str(caught.value)
    assert words in text and len(text) < 1000


def test_a_long_value_is_shortened_in_its_sentence():
    with pytest.raises(UserError, match=r"^data\.name = 'xxx.* \.\.\. .*is unknown") as caught:
        checked(DDPM, data__name="x" * 10_000)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("text", ["-" * 60_000, "(" * 60_000, "1" + "+1" * 60_000, "[" * 3_000_000])
def test_text_that_is_no_sensible_literal_stays_text(text):
    assert plain.literal(text) == text


TOPOLOGIES = (
    "v5e-" + "9" * 5000, "9" * 5000 + "xv5e-16", "v5e:9999999x99999999", "cpu:10000000",
    "x" * 10**6,
)  # fmt: skip


@pytest.mark.parametrize("name", TOPOLOGIES, ids=lambda name: name[:20])
def test_devices_that_nobody_has_are_refused(name):
    with pytest.raises(UserError, match=r"^compile\.topology = .* is unknown\. Examples"):
        topology.named(name)


@pytest.mark.parametrize("name", ["x" * 100_000, "\0", "a/" * 5000, "x" * 300 + ".json"])
def test_a_config_cannot_have_such_a_name(name):
    with pytest.raises(UserError, match="there is no such file") as caught:
        config.load(name)
    assert len(str(caught.value)) < 2000


def test_what_configs_hold_is_plain():
    words = tuple(f"word{i}" for i in range(65_536))
    inner = {"config": {"data": {"words": words, "size": (32, 48), "dir": "a folder/é"}}}
    assert plain.problems({"frozen": {"tokenizer": inner}, "data": {"words": words}}) == []


# --- every number has bounds ---------------------------------------------------------------------

NUMBERS = (int, float)


def holds(kind: object, kinds: tuple) -> bool:
    """Whether a type is, or is made of, one of these."""
    return kind in kinds or any(holds(part, kinds) for part in typing.get_args(kind))


def test_every_number_is_bounded_on_both_sides_and_every_tuple_in_length():
    rows = (*build.FAMILIES.values(), *build.NETWORKS.values())
    own = {getattr(row, name, None) for row in rows for name in ("settings", "sampling", "scoring")}
    every = {*SECTIONS.values(), *own, Average, ConditionSettings, FrozenSettings, RunSettings}
    wrong, seen = [], 0
    for kind in every - {None}:
        for name, setting in settings_of(kind).items():
            if holds(setting.type, NUMBERS) and not holds(setting.type, (Average,)):
                seen += 1
                bounded = all(abs(end) < float("inf") for end in setting.ends)
                wrong += [] if bounded else [f"{kind.__name__}.{name} has no bounds"]
            if typing.get_origin(setting.type) is tuple:
                lengths = [c for c in setting.constraints if isinstance(c, Entries)]
                bounded = any(c.most is not None for c in lengths)
                wrong += [] if bounded else [f"{kind.__name__}.{name} has no greatest length"]
    assert seen > 150 and not wrong, "\n".join(wrong)


# --- sizes ---------------------------------------------------------------------------------------

# test_config.py compares the number of params of every config with the exact one.
LAYERS = [
    "ddpm_fashion:smoke", "edm_fashion:smoke", "vdm_cifar:smoke", "toy_mixture:smoke",
    "classifier_fashion:smoke", "vae_fashion:smoke", "vae_cifar:smoke", "vqvae2_cifar:smoke",
    "dvae_cifar:smoke", "sr_fashion:smoke", "toy_waves:smoke",
]  # fmt: skip


def largest_array(jaxpr) -> int:
    """The bytes of the largest output of a product, in a traced program and those inside it."""
    most = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            made = [v.aval.size * v.aval.dtype.itemsize for v in equation.outvars]
            most = max(most, *made)
        for inner in jax.core.jaxprs_in_params(equation.params):
            most = max(most, largest_array(inner))
    return most


@pytest.mark.parametrize("path", LAYERS)
def test_a_program_holds_at_least_the_layer_that_is_counted(path):
    experiment, rows = Experiment(checked(path)), 64
    state, (player,) = experiment.abstract_state, experiment.family.losses.values()

    def losses(params, stats, batch):
        context = Context(batch=batch, key=experiment.root, step=0, stats=stats, frozen={})
        return player.loss(params, context)[0]

    traced = jax.make_jaxpr(losses)(state.params, state.stats, experiment.example(rows))
    exact, counted = largest_array(traced.jaxpr), rows * build.size(experiment.config).layer
    assert 0 < counted <= exact <= 9 * counted


def test_absurd_sizes_are_refused_everywhere():
    with pytest.raises(UserError, match=r"would need .* EiB of memory on every device, more than"):
        checked(DDPM, network__width=65_536, network__multipliers=(1000, 1000, 1000, 1000))
    with pytest.raises(UserError, match=r"would need .*: use a smaller train.batch_size"):
        checked(DDPM, train__batch_size=2**24, train__steps_per_call=1, network__width=16_384)


SENTENCES = [
    ({"network.width": 8192}, "train", r"needs at least 2\.66 TiB of memory \(2\.66 TiB for the "
     r"model and .*\), but this machine has 24 GiB: use a smaller network, or split it"),
    ({"train.batch_size": 1_000_000}, "train", r"500 GiB for a batch of train\.batch_size = 1000000"
     r"\), but this machine has 24 GiB: use a smaller train\.batch_size, more parts"),
    ({"sample.batch_size": 10**6, "sample.count": 10**6}, "sample", r"smaller sample\.batch_size"),
    ({"eval.batch_size": 1_000_000}, "eval", r"use a smaller eval\.batch_size, smaller data"),
    ({"network.width": 8192}, "reconstruct", r"--mode=reconstruct needs at least 2\.13 TiB"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "mode", "words"), SENTENCES)
def test_modes_that_allocate_ask_for_the_memory_of_this_machine(changes, mode, words, monkeypatch):
    monkeypatch.setattr(memory, "per_device", lambda: (24 * GIB, "this machine"))
    ours, theirs = checked(DDPM), check.check(config.override(config.load(DDPM), changes), 1)
    needs.require(ours, mode)
    with pytest.raises(UserError, match=words):
        needs.require(theirs, mode)


def test_accumulation_and_more_devices_need_less():
    def batch(devices: int = 1, **changes: object) -> int:
        return needs.of(checked(DDPM, **changes), "train", devices)[1].bytes

    assert batch(8) == batch() // 8
    assert batch(train__accumulate=4) == pytest.approx(batch() / 4, rel=1e-3)
    assert batch(train__batch_size=256) == 2 * batch()


def test_describe_and_compile_speak_for_other_machines(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "per_device", lambda: (1000, "this machine"))

    def read(mode: str):
        given = argparse.Namespace(config=f"{DDPM}:smoke", workdir=tmp_path / "run", mode=mode)
        return main._config(given, [])

    assert read("describe").family.name == "ddpm"
    assert {"describe", "compile"} == set(main._FOR_OTHERS)
    for mode in main._MODES.keys() - {*main._FOR_OTHERS, "list", "doctor"}:
        with pytest.raises(UserError, match=f"--mode={mode} needs at least .* this machine has 0"):
            read(mode)
    with pytest.raises(UserError, match="needs at least"):
        api.fit(checked(f"{DDPM}:smoke"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_memory_of_a_machine_is_that_of_its_container(tmp_path):
    whole = memory.of_machine(tmp_path)
    assert 2**28 < whole < 2**50
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.of_machine(tmp_path) == whole
    (tmp_path / "memory.max").write_text(f"{2**27}\n")
    assert memory.of_machine(tmp_path) == 2**27
    place = Path("memory") / "memory.limit_in_bytes"
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_text(f"{2**26}\n")
    assert memory.of_machine(tmp_path) == 2**26


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (24 * GIB, "24 GiB"), (2**50, "1 PiB"), (4.2 * 2**40, "4.2 TiB"),
     (2**80, "1.05e+06 EiB")],
)  # fmt: skip
def test_bytes_are_shown_with_three_digits(count, words):
    assert memory.shown(count) == words
