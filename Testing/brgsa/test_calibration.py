"""Reading and applying the calibration of a weights folder."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from brgsa.abnormalities import Abnormality
from brgsa.calibration import Calibration
from brgsa.errors import SetupError
from brgsa.prompts import prompt_sets

PROMPT = "There is Cardiomegaly"
SINGLE = ((PROMPT,), ())
ENTRY = {
    "prompt": PROMPT,
    "style": "single",
    "score": "final",
    "threshold": 0.25,
    "platt": {"a": 4.0, "b": -1.0},
    "n": 100,
    "positives": 20,
}


def write(folder, entry=None, **changes):
    content = {"version": 1, "abnormalities": {"Cardiomegaly": ENTRY | (entry or {})}, "provenance": {"set": "x"}}
    (folder / "calibration.json").write_text(json.dumps(content | changes), encoding="utf-8")
    return folder


def test_a_folder_without_the_file_has_no_calibration(tmp_path):
    assert Calibration.load(tmp_path) is None


def test_the_probability_is_the_logistic_of_a_score_plus_b(tmp_path):
    calibration = Calibration.load(write(tmp_path))
    probability, threshold = calibration.apply("Cardiomegaly", SINGLE, "single", "final", 0.3)
    assert probability == pytest.approx(1 / (1 + math.exp(-(4.0 * 0.3 - 1.0))), abs=1e-15)
    assert threshold == 0.25


def test_an_isotonic_map_is_linear_between_knots_and_flat_outside(tmp_path):
    knots = {"platt": None, "isotonic": {"x": [0.0, 0.2], "y": [0.1, 0.9]}}
    entry = Calibration.load(write(tmp_path, knots)).entries["Cardiomegaly"]
    np.testing.assert_allclose(entry.probability(np.array([-1.0, 0.05, 2.0])), [0.1, 0.3, 0.9])


def test_extreme_scores_do_not_overflow(tmp_path):
    entry = Calibration.load(write(tmp_path, {"platt": {"a": 1e6, "b": 0.0}})).entries["Cardiomegaly"]
    assert entry.probability(-1.0) == 0.0
    assert entry.probability(1.0) == 1.0


@pytest.mark.parametrize(
    "asked",
    [
        ("Emphysema", SINGLE, "single", "final"),
        ("Cardiomegaly", (("Cardiomegaly is present.",), ()), "single", "final"),
        ("Cardiomegaly", (PROMPT, ("No Cardiomegaly",)), "single", "final"),
        ("Cardiomegaly", SINGLE, "pair", "final"),
        ("Cardiomegaly", SINGLE, "single", "bank"),
    ],
)
def test_an_entry_fitted_for_something_else_does_not_apply(tmp_path, asked):
    assert Calibration.load(write(tmp_path)).apply(*asked, 0.3) == (None, None)


def test_several_prompts_are_compared_as_a_list(tmp_path):
    calibration = Calibration.load(write(tmp_path, {"prompt": ["A.", "B."], "style": "ensemble"}))
    assert calibration.entry("Cardiomegaly", (["A.", "B."], ()), "ensemble", "final") is not None
    assert calibration.entry("Cardiomegaly", (["B.", "A."], ()), "ensemble", "final") is None


def test_a_pair_is_calibrated_for_both_its_prompts(tmp_path):
    calibration = Calibration.load(write(tmp_path, {"style": "pair", "negative_prompt": "There is no Cardiomegaly"}))
    asked = Abnormality("Cardiomegaly")
    assert calibration.entry("Cardiomegaly", prompt_sets(asked, "pair"), "pair", "final") is not None
    changed = replace(asked, negative_prompts=("The heart is of normal size",))
    assert calibration.apply("Cardiomegaly", prompt_sets(changed, "pair"), "pair", "final", 0.3) == (None, None)
    more = replace(asked, negative_prompts=(*asked.negative_prompts, "The heart is of normal size"))
    assert calibration.entry("Cardiomegaly", prompt_sets(more, "pair"), "pair", "final") is None


def test_a_pair_that_does_not_say_its_negative_prompt_calibrates_nothing(tmp_path):
    """As in files written before entries said it: what it was fitted for is not known."""
    calibration = Calibration.load(write(tmp_path, {"style": "pair"}))
    assert calibration.entry("Cardiomegaly", prompt_sets(Abnormality("Cardiomegaly"), "pair"), "pair", "final") is None


@pytest.mark.parametrize("entry", [{}, {"style": "pair", "negative_prompt": "A"}, {"negative_prompt": ["A", "B"]}])
def test_what_is_written_is_read_back(tmp_path, entry):
    calibration = Calibration.load(write(tmp_path, entry))
    (tmp_path / "calibration.json").write_text(json.dumps(calibration.to_json()), encoding="utf-8")
    assert Calibration.load(tmp_path) == calibration


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        ({}, {"version": 2}),
        ({}, {"abnormalities": []}),
        ({"threshold": "high"}, {}),
        ({"threshold": float("nan")}, {}),
        ({"style": "triple"}, {}),
        ({"score": "raw"}, {}),
        ({"prompt": []}, {}),
        ({"prompt": None}, {}),
        ({"negative_prompt": 3}, {}),
        ({"style": "pair", "negative_prompt": ["A", 3]}, {}),
        ({"platt": {"a": 1.0}}, {}),
        ({"platt": None, "isotonic": {"x": [0.2, 0.1], "y": [0.1, 0.9]}}, {}),
        ({"platt": None, "isotonic": {"x": [0.1, 0.2], "y": [0.1, 1.9]}}, {}),
        ({"isotonic": {"x": [0.1], "y": [0.5]}}, {}),
        ({"n": None}, {}),
    ],
)
def test_a_broken_file_is_refused_in_one_line_that_names_it(tmp_path, entry, changes):
    with pytest.raises(SetupError, match=r"calibration\.json") as caught:
        Calibration.load(write(tmp_path, entry, **changes))
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused_in_one_line(tmp_path):
    path = write(tmp_path) / "calibration.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(SetupError, match="cannot be read"):
        Calibration.load(tmp_path)
