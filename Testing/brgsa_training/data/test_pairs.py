"""Captions, the order of studies, crops and batches."""

import json
import logging

import numpy as np
import pytest
import torch

from brgsa.errors import InputError, UsageError
from brgsa.preprocess import PreprocessingPlan, to_input
from brgsa.prompts import PromptTokenizer
from brgsa_training.data.arrays import ArrayVolumes
from brgsa_training.data.augmentation import Augmentation, random_crop
from brgsa_training.data.captions import (
    CaptionTokenizer,
    Study,
    draw_sentences,
    read_studies,
    studies_of,
    warn_of_unused,
)
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import PairDataset, to_model_input
from brgsa_training.data.sampler import StudyBatches

PLAN = PreprocessingPlan(spacing=(6.0, 6.0, 6.0), shape=(12, 10, 8))


@pytest.fixture(scope="module")
def tokenizer(parity):
    return CaptionTokenizer(parity / "tiny_vocab.txt", 24)


def volumes(count, dtype=np.int16):
    return ArrayVolumes(np.random.default_rng(0).integers(0, 200, (count, *PLAN.shape)).astype(dtype), PLAN)


def dataset(tokenizer, **options):
    sentences = {str(n): [f"there is pleural effusion {n}", "the heart is normal", "lung nodule"] for n in range(6)}
    return PairDataset(volumes(6), studies_of(sentences), tokenizer, **options)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def entry(*images, report=("there is pleural effusion",)):
    return {"images": list(images), "processed_report": list(report)}


def test_reports_are_paired_with_the_reconstructions_at_hand(tmp_path, caplog):
    path = write(
        tmp_path / "c.json",
        {
            "train": {
                "s1": entry("/far/away/s1_1.nii.gz", "s1_2.nii.gz"),
                "s2": entry("s2_1.nii.gz"),
                "s3": entry(),
            },
            "valid": {"v": entry("v.nii.gz")},
        },
    )
    with caplog.at_level(logging.WARNING):
        studies = read_studies(path, "train", {"s1_1", "s1_2", "s3", "lonely"})
        warn_of_unused({"s1_1", "s1_2", "s3", "lonely"}, studies)
    assert [(study.name, study.cases) for study in studies] == [("s1", ("s1_1", "s1_2")), ("s3", ("s3",))]
    assert "1 report(s) have no volume and are left out: s2" in caplog.text
    assert "1 volume(s) have no report and are left out: lonely" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"_layout": {"name": "brgsa-captions", "version": 9}, "train": {"a": entry()}}, '"version": 9'),
        ({"test": {"a": entry()}}, r"no studies in a split 'train' \(its splits: test\)"),
        ({"train": {"a": {"images": []}}}, "'a' needs lists of text"),
        ({"train": {"a": entry(report=[1])}}, "'a' needs lists of text"),
        ({"train": {"a": entry(report=[" "])}}, "study a has no sentence"),
        ({"train": {"b": entry()}}, "none of the 1 studies of the split 'train' has one of the 1 volumes"),
        ([], "are not a JSON object"),
    ],
)
def test_captions_that_cannot_be_used_are_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read_studies(write(tmp_path / "c.json", content), "train", {"a"})
    assert "\n" not in str(caught.value)


def test_a_captions_file_that_is_missing_or_no_json_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read the captions"):
        read_studies(tmp_path / "c.json", "train", {"a"})
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(InputError, match="are not valid JSON"):
        read_studies(tmp_path / "c.json", "train", {"a"})


def test_sentences_are_drawn_without_replacement_in_random_order():
    rng = np.random.default_rng(0)
    sentences = [f"s{n}" for n in range(8)]
    drawn = [draw_sentences(sentences, 5, 5, rng) for _ in range(400)]
    assert all(len(set(caption)) == 5 for caption in drawn)
    first = np.bincount([sentences.index(caption[0]) for caption in drawn], minlength=8)
    assert first.min() > 25  # of 50 expected
    assert sorted(draw_sentences(sentences[:3], 5, 5, rng)) == sentences[:3]
    assert {len(draw_sentences(sentences, 1, 5, rng)) for _ in range(100)} == {1, 2, 3, 4, 5}


def test_joined_sentences_have_the_word_pieces_of_the_joined_text(parity, tokenizer):
    reports = json.loads((parity / "tiny_model.json").read_text())["texts_cleaned"]
    whole = PromptTokenizer(parity / "tiny_vocab.txt", 24)
    for sentences in (reports[:2], reports[2:4], reports[::-1]):
        ids, mask = whole.encode([" ".join(sentences)])
        assert tokenizer.encode(sentences) == ids[0][mask[0] == 1].tolist()
    assert tokenizer.encode(["heart"]) == []  # the released cleaning erases a sentence of one word


def test_padding_marks_what_is_padding(tokenizer):
    ids, mask = tokenizer.pad_rows([[2, 7, 3], [2, 3]])
    assert ids.tolist() == [[2, 7, 3], [2, 3, tokenizer.pad]] and mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_every_study_comes_once_per_epoch_in_an_order_of_its_own():
    batches = StudyBatches(23, 4, seed=3)
    assert batches.per_epoch == 5
    epochs = [[key for step in range(5 * e, 5 * e + 5) for key in batches.batch(step)] for e in range(3)]
    for number, keys in enumerate(epochs):
        assert {epoch for epoch, _ in keys} == {number}
        assert len({study for _, study in keys}) == 20
    assert epochs[0] != [(0, study) for _, study in epochs[1]]
    assert StudyBatches(23, 4, seed=4).batch(0) != batches.batch(0)


def test_processes_share_the_batch_that_one_process_has():
    whole = StudyBatches(40, 8, seed=1)
    parts = [StudyBatches(40, 8, seed=1, rank=rank, world=4) for rank in range(4)]
    for step in (0, 3, 7):
        assert [key for part in parts for key in part.batch(step)] == whole.batch(step)


def test_batches_go_on_from_any_step():
    batches = StudyBatches(10, 3, seed=1)
    all_steps = [batches.batch(step) for step in range(9)]
    batches.first_step = 4
    assert [batch for batch, _ in zip(batches, range(5), strict=False)] == all_steps[4:]


def test_batches_that_cannot_be_made_are_refused():
    with pytest.raises(InputError, match="3 studies do not fill a batch of 4"):
        StudyBatches(3, 4)
    with pytest.raises(UsageError, match="cannot be shared by 3"):
        StudyBatches(100, 4, world=3)
    with pytest.raises(UsageError, match="a batch of 1 pairs"):
        StudyBatches(100, 1)


def test_a_pair_depends_on_seed_epoch_and_study_alone(tokenizer):
    crop = (8, 6, 4)
    first, again = dataset(tokenizer, crop=crop, seed=1), dataset(tokenizer, crop=crop, seed=1)
    again[(0, 3)], again[(5, 2)]
    for key in ((0, 0), (3, 5)):
        np.testing.assert_array_equal(first[key].voxels, again[key].voxels)
        assert first[key].ids == again[key].ids
    crops = {first[(epoch, 0)].voxels.tobytes() for epoch in range(20)}
    captions = {tuple(first[(epoch, 0)].ids) for epoch in range(20)}
    assert len(crops) > 10 and 2 < len(captions) <= 6


def test_any_reconstruction_of_a_study_is_drawn(tokenizer):
    pairs = PairDataset(volumes(3), [Study("s", ("0", "1", "2"), ("the heart is normal",))], tokenizer)
    assert {pairs[(epoch, 0)].case for epoch in range(30)} == {"0", "1", "2"}


def test_a_batch_holds_what_its_pairs_hold(tokenizer):
    pairs = dataset(tokenizer, crop=(8, 6, 4))
    keys = [(1, 4), (1, 2)]
    batch = pairs.collate([pairs[key] for key in keys])
    assert batch.voxels.shape == (2, 1, 8, 6, 4) and batch.voxels.dtype == torch.int16
    for row, key in zip(range(2), keys, strict=True):
        np.testing.assert_array_equal(batch.voxels[row, 0], pairs[key].voxels)
        assert batch.ids[row][batch.mask[row] == 1].tolist() == pairs[key].ids
    assert batch.cases == ["4", "2"]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_loaded_in_order_into_few_buffers(tokenizer, workers):
    pairs, batches = dataset(tokenizer, crop=(8, 6, 4)), StudyBatches(6, 2, seed=1)
    batches.first_step = 2
    buffers = set()
    loader = iter(BatchLoader(pairs, batches, workers))
    for step in range(2, 12):
        batch = next(loader)
        expected = pairs.collate([pairs[key] for key in batches.batch(step)])
        assert torch.equal(batch.voxels, expected.voxels) and torch.equal(batch.ids, expected.ids)
        assert batch.cases == expected.cases
        buffers.add(batch.voxels.data_ptr())
    assert len(buffers) == (3 if workers else 1)
    loader.close()


def test_an_error_while_loading_arrives_as_it_is(tokenizer):
    studies = [Study(f"s{n}", ("0",), ("normal",)) for n in range(4)]
    pairs = PairDataset(volumes(1), studies, tokenizer)
    with pytest.raises(InputError, match="has an empty caption"):
        next(iter(BatchLoader(pairs, StudyBatches(4, 2), workers=2)))


def test_an_empty_caption_is_named(tokenizer):
    pairs = PairDataset(volumes(1), [Study("s9", ("0",), ("normal",))], tokenizer)
    with pytest.raises(InputError, match="the study s9 has an empty caption"):
        pairs[(0, 0)]


def test_a_crop_that_is_larger_than_the_volumes_is_refused(tokenizer):
    with pytest.raises(InputError, match=r"crop of \(13, 10, 8\) voxels is larger"):
        dataset(tokenizer, crop=(13, 10, 8))


def test_crops_lie_where_monai_puts_them():
    from monai.transforms import RandSpatialCrop

    volume = np.random.default_rng(0).random(PLAN.shape)
    for seed in range(5):
        monai = RandSpatialCrop((8, 6, 4), random_size=False).set_random_state(seed)
        np.testing.assert_array_equal(random_crop(volume, (8, 6, 4), seed), np.asarray(monai(volume[None]))[0])
    assert np.shares_memory(random_crop(volume, (8, 6, 4), 0), volume)


def test_augmentation_repeats_itself_and_never_mirrors(tokenizer):
    hu = np.full((16, 16, 8), -1000, np.float32)
    hu[2:5, 4:12, 2:6] = 400  # on the right side
    augmentation = Augmentation(probability=1.0, noise_hu=1.0, shift_hu=1.0)
    changed = [augmentation.apply(hu, seed) for seed in range(4)]
    np.testing.assert_array_equal(changed[2], augmentation.apply(hu, 2))
    for one in changed:
        assert one.shape == hu.shape and abs(one - hu).max() > 0.1
        assert (one[:8] > 0).sum() > 10 * max(1, (one[8:] > 0).sum())


def test_augmented_pairs_are_in_hu_whatever_the_volumes_are_stored_as(tokenizer):
    stored = ArrayVolumes(np.full((1, *PLAN.shape), 100, np.uint8), PLAN, slope=10.0, intercept=-1000.0)
    still = Augmentation(probability=1.0, rotation_degrees=0, zoom=0, shift_voxels=0, noise_hu=0, shift_hu=0)
    pairs = PairDataset(stored, [Study("s", ("0",), ("the heart is normal",))], tokenizer, augmentation=still)
    assert (pairs.slope, pairs.intercept) == (1.0, 0.0)
    np.testing.assert_allclose(pairs[(0, 0)].voxels, 0.0, atol=1e-3)


@pytest.mark.parametrize("plan", [PreprocessingPlan(), PreprocessingPlan(clip_hu=(-1350, 150), mean=0.1, std=0.7)])
def test_scaling_on_the_device_is_the_scaling_of_the_library_bit_for_bit(plan):
    hu = np.random.default_rng(0).integers(-2000, 3000, (6, 5, 4)).astype(np.int16)
    ours = to_model_input(torch.from_numpy(hu)[None], plan)
    np.testing.assert_array_equal(ours.numpy(), to_input(hu, plan))
    halved = to_model_input(torch.from_numpy(hu)[None], plan, slope=0.5, intercept=-10)
    np.testing.assert_array_equal(halved.numpy(), to_input(hu * np.float32(0.5) - 10, plan))
