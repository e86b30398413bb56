"""What samples are asked to show: values, lists of values, absent conditions, mistakes."""

import numpy as np
import pytest

from genzoo import check, config
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.modes import illustrate
from genzoo.modes.illustrate import Subject
from genzoo.requests import Requests

NOTHING = Variables(params={}, stats={}, frozen={})


def requests(path: str, **conditions) -> Requests:
    """The requests of a config with these `sample.conditions`."""
    raw = config.load(f"configs/{path}.py:smoke")
    raw["sample"]["conditions"] = conditions
    if path == "toy_waves":
        raw["conditions"] = {"label": {}, "frequency": {"dropout": 0.1}}
    experiment = Experiment(check.check(raw))
    return Requests(experiment=experiment, family=experiment.family)


def test_samples_cycle_through_a_list_of_texts():
    prompts = ["a red circle", "a blue square above a red star", "a cyan ring"]
    asked = requests("fm_shapes", text=prompts)
    rows = asked.rows(np.arange(2, 9))
    assert asked.texts(rows) == [prompts[i % 3] for i in range(2, 9)]
    assert asked.conditions(NOTHING, rows)["text"].present.all()


def test_without_a_request_texts_are_those_of_the_test_split():
    asked = requests("fm_shapes")
    read = asked.experiment.open("test").read(np.arange(3))
    np.testing.assert_array_equal(asked.rows(np.arange(3))["text"], read["text"])


def test_classes_are_given_by_name_or_number_alone_or_in_a_list():
    for given, expected in (("Sneaker", [7]), (3, [3]), (["bag", 0, "7"], [8, 0, 7])):
        rows = requests("ddpm_fashion_cond", label=given).rows(np.arange(6))
        np.testing.assert_array_equal(rows["label"], np.resize(expected, 6))
    rows = requests("ddpm_fashion_cond", label=-1).rows(np.arange(12))
    np.testing.assert_array_equal(rows["label"], np.arange(12) % 10)


def test_one_value_of_a_list_may_be_absent():
    asked = requests("ddpm_fashion_cond", label=["bag", "none"])
    given = asked.conditions(NOTHING, asked.rows(np.arange(5)))["label"]
    np.testing.assert_array_equal(given.present, [True, False, True, False, True])
    np.testing.assert_array_equal(np.asarray(given.value)[::2], 8)
    asked = requests("ddpm_fashion_cond", label="none")
    assert not asked.conditions(NOTHING, asked.rows(np.arange(5)))["label"].present.any()


def test_the_class_is_that_of_the_record_that_other_conditions_come_from():
    index = np.arange(6)
    asked = requests("toy_waves")
    test = asked.experiment.open("test").read(index)
    assert not np.array_equal(test["label"], index % 3) and asked.classes == 0
    np.testing.assert_array_equal(asked.rows(index)["label"], test["label"])
    np.testing.assert_array_equal(asked.rows(index)["frequency"], test["frequency"])
    for given in (dict(frequency=2.5), dict(label=-1), dict(label="-1", frequency="none")):
        asked = requests("toy_waves", **given)
        np.testing.assert_array_equal(asked.rows(index)["label"], index % 3)
        assert asked.classes == 3


def test_guidance_cannot_move_away_from_all_classes():
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    raw["sample"] |= dict(guidance_scale=2.0, negative=dict(label=-1))
    experiment = Experiment(check.check(raw))
    with pytest.raises(UserError, match=r"sample\.negative\.label = -1 is no class"):
        Requests(experiment=experiment, family=experiment.family).check()


def test_a_negative_value_of_a_list_may_be_absent():
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    raw["sample"] |= dict(guidance_scale=2.0, negative=dict(label=["none", "bag", 3]))
    experiment = Experiment(check.check(raw))
    asked = Requests(experiment=experiment, family=experiment.family)
    given = asked.negative(NOTHING, asked.rows(np.arange(6)))["label"]
    np.testing.assert_array_equal(given.present, [False, True, True] * 2)
    np.testing.assert_array_equal(np.asarray(given.value)[[1, 2, 4, 5]], [8, 3, 8, 3])


def test_absent_classes_have_no_name_in_captions():
    asked = requests("ddpm_fashion_cond", label=["bag", "none"])
    assert asked.captions(asked.rows(np.arange(3))) == ["Bag", "none", "Bag"]


def test_the_velocity_is_drawn_for_the_first_of_several_classes(tmp_path):
    raw = config.load("configs/toy_mixture.py:smoke")
    raw["conditions"] = {"label": {"dropout": 0.1}}
    raw["sample"]["conditions"] = {"label": [2, "none"]}
    experiment = Experiment(check.check(raw))
    asked = Requests(experiment=experiment, family=experiment.family)
    variables = experiment.initial_variables()
    path = illustrate.field(Subject(requests=asked, variables=variables, folder=tmp_path))
    assert path.is_file()


def test_numbers_are_one_vector_and_a_list_of_texts_several():
    for given, expected in (
        (2.5, [2.5]), ((2.5,), [2.5]), ("frequency=3", [3.0]), (["frequency=3", "2"], [3.0, 2.0]),
        ([[1.5], [2.5]], [1.5, 2.5]),
    ):  # fmt: skip
        rows = requests("toy_waves", frequency=given).rows(np.arange(4))
        np.testing.assert_array_equal(rows["frequency"][:, 0], np.resize(expected, 4))


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"text": "a rad circle"}, "'a rad circle' .*no word 'rad': did you mean 'red'"),
        ({"text": ["a red circle", "a dog"]}, "'a dog' .*no word 'dog'"),
        ({"text": "a red circle left of a red circle left of a"}, "has 11 tokens.*at most 10"),
        ({"text": []}, "sample.conditions.text is an empty list"),
        ({"txt": "a red circle"}, "txt.* is not a condition of this model: did you mean 'text'"),
    ],
)
def test_mistakes_are_named(conditions, message):
    with pytest.raises(UserError, match=message):
        requests("fm_shapes", **conditions).check()
