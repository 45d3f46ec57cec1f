import pytest

from brgsa_training.summarize.normaliser import Normaliser


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Atelectases", "Atelectasis"),
        ("PLEURAL EFFUSIONS", "Pleural effusion"),
        ("nodules, pulmonary", "Lung nodule"),
        ("Hernia, hiatal", "Hiatal hernia"),
        ("ground-glass opacities", "Ground glass opacity"),
        ("thickening of the pleura", "Pleural thickening"),
        ("mild bilateral pleural effusion", "Pleural effusion"),
        ("Metastases", "Metastasis"),
        ("bullae", "Emphysema"),
        ("There is cardiomegaly", "Cardiomegaly"),
        ("lung", None),
        ("thymic remnant", None),
        ("", None),
    ],
)
def test_free_names_lead_to_the_vocabulary(vocabulary, raw, name):
    assert Normaliser(vocabulary).name(raw) == name


def test_what_was_merged_and_what_was_not_is_counted(vocabulary):
    normaliser = Normaliser(vocabulary)
    for raw in ("Lung nodule", "nodules", "Nodules", "thymic remnant", "Thymic  remnant"):
        normaliser.name(raw)
    assert normaliser.merged == {("nodules", "Lung nodule"): 2}
    assert normaliser.unmapped == {"thymic remnant": 2}
