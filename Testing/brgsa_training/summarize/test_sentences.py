import pytest
from hypothesis import given
from hypothesis import strategies as st

from brgsa_training.summarize.sentences import LONGEST, split_sentences


def test_decimals_dates_and_abbreviations_are_not_cut():
    text = (
        "Compared with the CT dated 03.02.2020 and 21. 02. 2020. A 4.5 mm nodule (approx. 5 mm). "
        "Seen by Dr. Smith. It measures 5x4x5. The heart is normal."
    )
    assert split_sentences(text) == [
        "Compared with the CT dated 03.02.2020 and 21. 02. 2020.",
        "A 4.5 mm nodule (approx. 5 mm).",
        "Seen by Dr. Smith.",
        "It measures 5x4x5.",
        "The heart is normal.",
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            '" Cardiomegaly." Emphysema in both lungs " Hiatal hernia',
            ["Cardiomegaly.", "Emphysema in both lungs", "Hiatal hernia"],
        ),
        ("Cardiomegaly  Emphysema.  Nodule", ["Cardiomegaly", "Emphysema.", "Nodule"]),
        ("• Nodule. • Effusion", ["Nodule.", "Effusion"]),
        ("In the lung window; Aeration is normal", ["In the lung window;", "Aeration is normal"]),
        ("Nodule\nEffusion", ["Nodule", "Effusion"]),
        (
            "Mosaic (small airway disease? small vessel disease?) in both.",
            ["Mosaic (small airway disease? small vessel disease?) in both."],
        ),
        ("", []),
        (' . " 12. ', []),
    ],
)
def test_list_items_are_sentences(text, sentences):
    assert split_sentences(text) == sentences


@given(st.text(max_size=300))
def test_every_sentence_is_a_piece_of_the_text_in_order(text):
    place = 0
    for sentence in split_sentences(text):
        place = text.index(sentence, place) + len(sentence)


def test_a_sentence_without_an_end_is_cut():
    text = "nodule in the lung, " * 5000
    sentences = split_sentences(text)
    assert max(map(len, sentences)) <= LONGEST
    assert "".join("".join(sentences).split()) == "".join(text.split())
