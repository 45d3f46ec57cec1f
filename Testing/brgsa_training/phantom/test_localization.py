"""The heat maps of the demonstration weights lie on the lesions of phantoms that they were not trained on."""

import numpy as np
import pytest

from brgsa.scoring import Scorer
from brgsa_training.phantom.localization import trials
from brgsa_training.phantom.prevalence import labels


@pytest.fixture(scope="module")
def measured():
    scorer = Scorer.from_pretrained("phantom", device="cpu", precision="fp32", cache=False)
    return list(trials(scorer, list(labels()), range(9_100_000, 9_100_003)))


def surely_positive(differences):
    """Whether the mean lies above 0 by two standard errors; prints both."""
    mean, error = np.mean(differences), np.std(differences, ddof=1) / np.sqrt(len(differences))
    print(f"{mean:.3f} with a standard error of {error:.3f}, {len(differences)} phantoms")
    return mean > 2 * error


@pytest.mark.slow
def test_a_map_has_more_mass_on_the_lesion_than_an_even_or_a_random_one(measured):
    assert surely_positive([trial.own - 1 for trial in measured])
    assert surely_positive([trial.own - trial.shuffled for trial in measured])


@pytest.mark.slow
def test_a_map_has_more_mass_on_the_lesion_than_the_map_of_other_words(measured):
    assert surely_positive([np.log(trial.own / trial.other_words) for trial in measured])


@pytest.mark.slow
def test_the_strongest_point_lies_on_the_lesion_more_often_than_by_chance(measured):
    assert surely_positive([trial.hit - trial.chance for trial in measured])
