"""Text cleaning, prompt styles and token ids."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brgsa.abnormalities import Abnormality
from brgsa.errors import SetupError, UsageError
from brgsa.prompts import PromptTokenizer, prompt_sets, prompt_templates
from brgsa.text import clean, clean_sentences


@pytest.fixture(scope="session")
def cases(parity):
    return json.loads((parity / "text_cleaning.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="session")
def tokenizer(parity):
    return PromptTokenizer(parity / "tiny_vocab.txt", max_length=24)


def test_all_24_texts_are_cleaned_as_the_released_code_does(cases):
    assert len(cases) == 24
    for case in cases:
        assert clean_sentences(case["raw"]) == case["sentences"], case["raw"]
        assert clean(case["raw"]) == case["cleaned"], case["raw"]


def test_all_24_texts_get_the_released_token_ids_and_masks(cases, tokenizer):
    ids, mask = tokenizer.encode([case["raw"] for case in cases])
    padding = ((0, 0), (0, 24 - ids.shape[1]))
    assert np.pad(ids, padding, constant_values=tokenizer.pad_id).tolist() == [
        case["input_ids_tiny_vocab_len24"] for case in cases
    ]
    assert np.pad(mask, padding).tolist() == [case["attention_mask"] for case in cases]
    assert ids.dtype == mask.dtype == np.int64


def test_a_batch_is_padded_only_to_its_longest_text(tokenizer):
    ids, mask = tokenizer.encode(["There is Cardiomegaly", "There is no Hiatal hernia"])
    assert ids.tolist() == [[2, 5, 6, 20, 3, 0, 0], [2, 5, 6, 7, 25, 26, 3]]
    assert mask.sum(axis=1).tolist() == [5, 7]
    assert tokenizer.encode([])[0].shape == (0, 0)


def test_long_random_texts_get_the_ids_of_berts_own_tokenizer(tokenizer, parity):
    from transformers import BertTokenizer

    pieces = (parity / "tiny_vocab.txt").read_text(encoding="utf-8").split("\n")
    theirs = BertTokenizer(str(parity / "tiny_vocab.txt"), do_lower_case=True)
    random = np.random.default_rng(3)
    words = [piece.replace("#", "") for piece in pieces if piece and "[" not in piece] + [
        "unheard",
        "Cardioitis",
        "a" * 120,
    ]
    texts = [" ".join(random.choice(words, size=random.integers(2, 40))) for _ in range(100)]
    ids, mask = tokenizer.encode(texts)
    expected = theirs([clean(text) for text in texts], max_length=24, truncation=True, padding="longest")
    assert ids.shape[1] == 24
    assert ids.tolist() == expected["input_ids"]
    assert mask.tolist() == expected["attention_mask"]


@given(st.text())
def test_cleaned_text_is_plain_words_whatever_comes_in(text):
    cleaned = clean(text)
    assert cleaned.isascii()
    assert cleaned == cleaned.lower()
    assert not set(cleaned) & set(".,;:-\n\t/()\"'")


def test_single_gives_the_released_prompt_alone():
    assert prompt_sets(Abnormality("Cardiomegaly"), "single") == (("There is Cardiomegaly",), ())


def test_pair_adds_the_negative_prompt():
    assert prompt_sets(Abnormality("Cardiomegaly"), "pair") == (
        ("There is Cardiomegaly",),
        ("There is no Cardiomegaly",),
    )


def test_ensemble_adds_every_template_once_to_the_own_prompts():
    positives, negatives = prompt_sets(Abnormality("Pulmonary embolism", ("There is lung embolism",)), "ensemble")
    assert negatives == ()
    assert len(positives) == len(prompt_templates()) + 1
    assert "There is lung embolism" in positives
    assert "There is Pulmonary embolism" in positives
    assert len(prompt_sets(Abnormality("Pneumonia"), "ensemble")[0]) == len(prompt_templates())
    assert len(prompt_sets(Abnormality("Pneumonia", ("there is: pneumonia",)), "ensemble")[0]) == len(
        prompt_templates()
    )


def test_every_template_is_a_phrase_with_the_name_in_it():
    templates = prompt_templates()
    assert len(templates) >= 5
    for template in templates:
        assert template.count("{name}") == 1
        assert clean(template.replace("{name}", "Hiatal hernia")).count("hiatal hernia") == 1


def test_a_name_with_braces_is_taken_as_it_is():
    positives, _ = prompt_sets(Abnormality("Mass {0} {name}"), "ensemble")
    assert "There is Mass {0} {name}" in positives


def test_an_unknown_style_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r'no prompt style "both"\. Styles: single, pair, ensemble'):
        prompt_sets(Abnormality("Pneumonia"), "both")


def test_a_prompt_that_the_model_reads_as_written_has_no_warning(tokenizer):
    assert tokenizer.warnings(["There is Cardiomegaly", "There is ground-glass opacity."]) == []


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        ("A nodule of 3.5 mm", 'prompt "A nodule of 3.5 mm" reaches the model as "a nodule of 5 mm"'),
        (
            "There is normal heart. Effusion",
            'prompt "There is normal heart. Effusion" reaches the model as "there is normal heart"',
        ),
        (
            "There is scoliosis or scoliosis",
            'prompt "There is scoliosis or scoliosis" has words that the vocabulary of these weights lacks: '
            '"scoliosis"',
        ),
        (
            "there is " * 11 + "a left lung nodule",
            'prompt "there is there is there is there is there is there is there is there is there i…" '
            'has 26 word pieces and is cut to 22, after "… there is there is"',
        ),
    ],
)
def test_a_prompt_that_the_model_reads_otherwise_is_named_in_one_line(tokenizer, prompt, warning):
    assert tokenizer.warnings([prompt]) == [warning]


def test_a_prompt_that_just_fits_is_not_called_cut(tokenizer):
    assert tokenizer.warnings(["there is " * 11]) == []
    assert tokenizer.encode(["there is " * 11])[0].shape == (1, 24)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no vocabulary"),
        (b"[PAD]\n[UNK]\nthere\n", r"lacks \[CLS\], \[SEP\]"),
        (b"", "lacks"),
        (b"\xff\xfe", "damaged"),
    ],
)
def test_a_vocabulary_that_is_missing_or_damaged_is_named(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=message) as error:
        PromptTokenizer(path, 97)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_vocabulary_with_windows_line_ends_gives_the_same_ids(tmp_path, parity, tokenizer):
    path = tmp_path / "vocab.txt"
    path.write_bytes((parity / "tiny_vocab.txt").read_bytes().replace(b"\n", b"\r\n"))
    texts = ["There is Cardiomegaly", "There is ground-glass opacity"]
    assert PromptTokenizer(path, 24).encode(texts)[0].tolist() == tokenizer.encode(texts)[0].tolist()
    assert PromptTokenizer(path, 24).size == tokenizer.size == 85


def test_tokenising_imports_neither_torch_nor_transformers(parity):
    program = (
        "import sys; from brgsa.prompts import PromptTokenizer; "
        f"PromptTokenizer({str(parity / 'tiny_vocab.txt')!r}, 24).encode(['There is Pneumonia']); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
