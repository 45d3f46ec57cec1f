import pytest

from brgsa_training.summarize.scope import plain


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Atelactasis is seen", "atelectasis is seen"),
        ("bilateral plueral efusion", "bilateral pleural effusion"),
        ("a 5 mm noduel", "a 5 mm nodule"),
        ("oesophageal hiatus hernia", "esophageal hiatus hernia"),
        ("haemopericardium", "hemopericardium"),
    ],
)
def test_a_misspelt_word_is_read_as_what_it_stands_for(vocabulary, written, read):
    assert vocabulary.spelling.correct(plain(written)).text == read


@pytest.mark.parametrize(
    "right",
    ["epicardial fat draws attention", "clarification of the parenchyma", "brachial vein", "interlobar fissure"],
)
def test_a_right_word_near_to_another_is_left_alone(vocabulary, right):
    assert vocabulary.spelling.correct(right).text == right


def test_what_was_corrected_is_found_again_as_it_was_written(rules):
    finding = rules.findings("In the left lower lobe atelactasis and, on the right, plueral effusion.")[-1]
    assert (finding.raw_name, finding.location) == ("plueral effusion", "left lower lobe")
