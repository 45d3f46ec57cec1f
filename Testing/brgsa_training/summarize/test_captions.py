import json
from pathlib import Path

import pytest
from jsonschema import validate

import brgsa_training.summarize.captions as captions_module
from brgsa.errors import InputError, UsageError
from brgsa_training.summarize.captions import Caption, Variant, caption, read_captions, write_captions
from brgsa_training.summarize.findings import Finding, Summary
from brgsa_training.summarize.scope import Status

TEXT = "A 3.5 mm nodule is seen. No effusion. Heart size increased. The aorta is normal. Bones are normal."
NAMES = ("Cardiomegaly", "Lung nodule", "Pleural effusion", "Hydatid cyst")


def _summary(name: str = "train_1_a", split: str = "train", **changes: object) -> Summary:
    findings = (
        Finding("Lung nodule", "nodule", Status.PRESENT, "A 3.5 mm nodule is seen."),
        Finding("Pleural effusion", "effusion", Status.ABSENT, "No effusion."),
        Finding("Cardiomegaly", "Heart size increased", Status.PRESENT, "Heart size increased."),
        Finding("Hydatid cyst", "cyst", Status.UNCERTAIN, "Hydatid cyst?"),
    )
    return Summary(name, split, (f"{name}_1.nii.gz",), TEXT, findings)._replace(**changes)


def test_a_caption_is_the_cleaned_report_and_what_is_present(vocabulary):
    assert caption(_summary(), NAMES, vocabulary) == [
        *("5 mm nodule is seen", "no effusion", "heart size increased", "the aorta is normal", "bones are normal"),
        *("there is cardiomegaly", "there is lung nodule"),
    ]


def test_report_only_and_summary_only(vocabulary):
    both = caption(_summary(), NAMES, vocabulary)
    assert caption(_summary(), NAMES, vocabulary, Variant("report")) == both[:5]
    assert caption(_summary(), NAMES, vocabulary, Variant("summary")) == both[5:]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4])
def test_dropped_sentences_are_the_share_asked_for_and_depend_on_the_seed_only(vocabulary, share):
    text = " ".join(f"Sentence {number} is here." for number in range(100))
    summary = _summary(text=text, findings=())
    kept = caption(summary, NAMES, vocabulary, Variant(drop=share, seed=1))
    assert len(kept) == round(100 * (1 - share))
    full = caption(summary, NAMES, vocabulary)
    assert [sentence for sentence in full if sentence in set(kept)] == kept
    assert kept == caption(summary, NAMES, vocabulary, Variant(drop=share, seed=1))
    assert kept != caption(summary, NAMES, vocabulary, Variant(drop=share, seed=2))


def test_label_noise_makes_the_share_of_labels_wrong(vocabulary):
    names = vocabulary.names
    clean = set(caption(_summary(), names, vocabulary, Variant("summary")))
    wrong = 0
    for seed in range(100):
        noisy = set(caption(_summary(), names, vocabulary, Variant("summary", noise=0.2, seed=seed)))
        wrong += len(noisy ^ clean)
    assert 0.17 < wrong / (100 * len(names)) < 0.23


def test_the_file_is_in_the_released_layout_and_follows_the_schema(tmp_path, vocabulary):
    path = tmp_path / "captions.json"
    summaries = [
        _summary(),
        _summary("valid_2_a", "valid"),
        _summary("train_3_a", problem="no answer"),
        _summary("train_4_a", text="", findings=()),
        _summary("train_5_a"),
    ]
    assert write_captions(path, lambda: iter(summaries), NAMES, vocabulary) == 3
    content = json.loads(path.read_text(encoding="utf-8"))
    schema = Path(captions_module.__file__).parent / "data" / "captions.schema.json"
    validate(content, json.loads(schema.read_text(encoding="utf-8")))
    assert list(content) == ["_layout", "train", "valid"]
    assert list(content["train"]) == ["train_1_a", "train_5_a"]
    assert set(content["train"]["train_1_a"]) == {"images", "processed_report"}
    read = read_captions(path)
    assert read["valid"]["valid_2_a"] == Caption(
        ("valid_2_a_1.nii.gz",), tuple(content["valid"]["valid_2_a"]["processed_report"])
    )


def test_a_file_without_a_version_is_the_released_layout(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"train": {"a": {"images": ["x"], "processed_report": ["there is a mass"], "more": 1}}}')
    assert read_captions(path) == {"train": {"a": Caption(("x",), ("there is a mass",))}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"_layout": {"name": "brgsa-captions", "version": 2}}', "have the layout .*2.*, this program reads"),
        ('{"_layout": 3}', "have the layout 3"),
        ("[]", "not a JSON object of splits"),
        ("{", "not valid JSON"),
        ('{"train": []}', "the split 'train' is not an object"),
        ('{"train": {"a": {"images": ["x"]}}}', "'train', 'a' needs lists of text"),
        ('{"train": {"a": {"images": ["x"], "processed_report": []}}}', "'train', 'a' needs lists of text"),
        ('{"train": {"a": {"images": "x", "processed_report": ["b"]}}}', "'train', 'a' needs lists of text"),
    ],
)
def test_other_layouts_and_versions_are_refused(tmp_path, content, message):
    path = tmp_path / "captions.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_captions(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "variant", [Variant("all"), Variant(drop=1.0), Variant(noise=-0.1), Variant(drop=float("nan"))]
)
def test_variants_that_make_no_sense_are_refused(variant):
    with pytest.raises(UsageError):
        variant.check()
