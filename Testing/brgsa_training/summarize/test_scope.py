import pytest

from brgsa_training.summarize.scope import Scope, Status, plain

CASES = [
    ("No pleural or pericardial effusion was detected.", "pericardial effusion", "absent"),
    ("Pericardial effusion-thickening was not observed.", "pericardial effusion", "absent"),
    ("Pericardial effusion - no thickening was detected.", "pericardial effusion", "absent"),
    (
        "Pleural effusion was observed on the right, pericardial effusion was not detected.",
        "pleural effusion",
        "present",
    ),
    (
        "Pleural effusion was observed on the right, pericardial effusion was not detected.",
        "pericardial effusion",
        "absent",
    ),
    ("There is pleural effusion on the right, pericardial effusion was not detected.", "pleural effusion", "present"),
    (
        "There is no pathological wall thickness increase in the esophagus, and there is a sliding type hiatal hernia",
        "hiatal hernia",
        "present",
    ),
    (
        "No pathological wall thickening was detected in the esophagus and sliding hiatal hernia is observed.",
        "hiatal hernia",
        "present",
    ),
    ("A consolidation which was not observed in the previous examination is observed.", "consolidation", "present"),
    (
        "In the left lung, a nodular density which was not clearly detected in the previous examination.",
        "nodular density",
        "present",
    ),
    (
        "Another nodule, which was observed in the previous examination, was not observed in the current one.",
        "nodule",
        "absent",
    ),
    ("Consolidation disappeared.", "consolidation", "absent"),
    ("No significant difference was found in the size of the nodules.", "nodules", "present"),
    ("There was no difference in the amount of pleural effusion.", "pleural effusion", "present"),
    ("No mass other than the nodule in the right lung was detected.", "nodule", "present"),
    ("Pneumonia cannot be excluded.", "pneumonia", "uncertain"),
    ("Viral pneumonia?", "pneumonia", "uncertain"),
    ("Nodule without calcification is observed.", "calcification", "absent"),
    ("Nodule without calcification is observed.", "nodule", "present"),
    ("not typical for Covid 19, but may be significant in terms of viral pneumonia", "covid 19", "absent"),
    ("not typical for Covid 19, but may be significant in terms of viral pneumonia", "viral pneumonia", "uncertain"),
    (
        "The nodule observed in the middle lobe in previous examinations is completely regressed.",
        "nodule",
        "absent",
    ),
    ("There was no finding compatible with pneumonia.", "pneumonia", "absent"),
    (
        "Millimetric lymph nodes were observed, and no lymph nodes were detected in pathological size.",
        "lymph nodes",
        "present",
    ),
    (
        "The consolidation observed in the previous examination was found to be significantly regressed.",
        "consolidation",
        "absent",
    ),
    ("There are lymph nodes that do not reach pathological size at both hilar levels.", "lymph nodes", "present"),
    (
        "No fractures or lytic-destructive lesions were observed in the bone structures within the sections.",
        "fractures",
        "absent",
    ),
    ("Pneumonia was ruled out.", "pneumonia", "absent"),
    ("The lungs are free of consolidation.", "consolidation", "absent"),
    ("No evidence of pneumothorax; small pleural effusion.", "pleural effusion", "present"),
]


@pytest.mark.parametrize(("sentence", "mention", "status"), CASES)
def test_the_status_of_a_mention(sentence, mention, status):
    text = plain(sentence)
    start = text.index(mention)
    assert Scope(text).status(start, start + len(mention)) is Status(status)


@pytest.mark.parametrize("sentence", ["İÇİN the Lung-Nodule", "ground–glass", "Right/left"])
def test_plain_text_keeps_every_character_at_its_place(sentence):
    assert len(plain(sentence)) == len(sentence)
    assert "-" not in plain(sentence)
