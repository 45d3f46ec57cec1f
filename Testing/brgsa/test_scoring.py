"""One scan, many prompts: the scorer agrees with the formula, keeps what it knows, and says what it did."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from brgsa import AbnormalityList, Scorer
from brgsa.abnormalities import Abnormality
from brgsa.ct.cases import find_cases
from brgsa.ct.volume import read_ct
from brgsa.errors import InputError, SetupError, UsageError
from brgsa.model import cosines
from brgsa.preprocess import to_grid, to_input
from brgsa.scoring import ScanScores, settings_digest
from brgsa.weights.folder import open_weights

FOUR = AbnormalityList.from_names(["Lung nodule", "Pleural effusion", "Emphysema", "Hiatal hernia"])


@pytest.fixture(scope="module")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu", precision="fp32", cache=False)


def by_hand(scorer, path, texts):
    """The released formula, written with the model alone: prompts padded to the full length."""
    volume = read_ct(path)
    hu, _ = to_grid(volume, scorer.weights.plan)
    x = torch.from_numpy(np.ascontiguousarray(to_input(hu, scorer.weights.plan)))[None]
    ids, mask = scorer.tokenizer.encode([*texts, " ".join(["nodule"] * 200)])  # the last one makes all rows 97 long
    assert ids.shape[1] == scorer.model.config.text_length
    with torch.inference_mode():
        v, t = scorer.model.embed_image(x), scorer.model.embed_text(torch.from_numpy(ids), torch.from_numpy(mask))[:-1]
        direct, bank = cosines(v, t)[0], cosines(scorer.model.bank(v), t)[0]
    return {"direct": direct, "bank": bank, "final": (direct + bank) / 2}


@pytest.mark.parametrize("kind", ["final", "direct", "bank"])
def test_scores_are_the_formula_of_the_method(scorer, torso_path, kind):
    expected = by_hand(scorer, torso_path, [f"There is {row.name}" for row in FOUR])[kind]
    scores = scorer.score(torso_path, FOUR, kind=kind)
    np.testing.assert_allclose([row.score for row in scores.scores], expected, rtol=0, atol=1e-5)
    assert [row.name for row in scores.scores] == list(FOUR.names)


def test_pair_subtracts_the_negative_prompt(scorer, torso_path):
    expected = by_hand(scorer, torso_path, ["There is Emphysema", "There is no Emphysema"])["final"]
    scores = scorer.score(torso_path, FOUR, prompts="pair")
    assert scores["Emphysema"].score == pytest.approx(float(expected[0] - expected[1]), abs=1e-5)


def test_several_prompts_are_averaged_as_unit_vectors(scorer, torso_path):
    texts = ("There is Emphysema", "Lungs with many bullae")
    one = AbnormalityList("one", (Abnormality("Emphysema", prompts=texts),))
    vectors = scorer.embed_texts(texts)
    mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0)
    image = scorer.embed(torso_path).image
    expected = image @ mean / np.linalg.norm(image) / np.linalg.norm(mean)
    assert scorer.score(torso_path, one, kind="direct")["Emphysema"].score == pytest.approx(expected, abs=1e-5)


def test_the_readme_example_runs_as_written(torso_path):
    scores = Scorer.from_pretrained("phantom").score(torso_path, AbnormalityList.preset("ct-rate-18"))
    assert len(scores.scores) == 18 and "Lung nodule" in str(scores)


def test_a_second_list_encodes_only_its_new_prompts(scorer, torso_path, monkeypatch):
    scorer.score(torso_path, FOUR)
    encoded = []
    original = scorer.model.embed_text
    monkeypatch.setattr(scorer.model, "embed_text", lambda ids, mask: encoded.append(len(ids)) or original(ids, mask))
    monkeypatch.setattr(scorer.model, "embed_image", lambda volume: pytest.fail("the scan was encoded again"))
    scorer.score(torso_path, AbnormalityList.from_names([*FOUR.names, "Rib fracture of the left side"]))
    assert encoded == [1]


def test_a_scan_that_changed_on_disk_is_encoded_again(scorer, torso_paths):
    before = scorer.embed(torso_paths[0]).image
    torso_paths[0].write_bytes(torso_paths[1].read_bytes())
    assert not np.array_equal(scorer.embed(torso_paths[0]).image, before)


def test_embeddings_survive_in_the_cache_and_depend_on_voxels_and_plan_and_weights(torso_paths):
    first = Scorer.from_pretrained("phantom", device="cpu")
    fresh = first.embed(torso_paths[0])
    again = Scorer.from_pretrained("phantom", device="cpu")
    again.model.embed_image = lambda volume: pytest.fail("the scan was encoded again")
    assert np.array_equal(again.embed(torso_paths[0]).image, fresh.image)
    again.model.embed_text = lambda ids, mask: pytest.fail("a prompt was encoded again")
    first.embed_texts(["There is Emphysema"])
    again.embed_texts(["There is Emphysema"])
    with pytest.raises(pytest.fail.Exception):
        again.embed(torso_paths[1])


def test_progress_rises_through_named_stages_and_an_exception_in_it_cancels(scorer, torso_paths):
    seen = []
    scorer.score(torso_paths[0], FOUR, on_progress=lambda fraction, stage: seen.append((fraction, stage)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert {"reading", "preprocessing", "encoding the scan"} <= {stage for _, stage in seen}

    def cancel(fraction, stage):
        if stage == "encoding the scan" and fraction > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.score(torso_paths[1], FOUR, on_progress=cancel)
    assert len(scorer.score(torso_paths[1], FOUR).scores) == 4  # and the scorer is as good as new


def test_bf16_scores_stay_within_five_thousandths_of_fp32(torso_path, scorer):
    half = Scorer.from_pretrained("phantom", device="cpu", precision="bf16", cache=False)
    for ours, theirs in zip(half.score(torso_path, FOUR).scores, scorer.score(torso_path, FOUR).scores, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=0.005)
    assert half.score(torso_path, FOUR).settings["precision"] == "bf16"


def test_an_axis_permuted_copy_scores_the_very_same(scorer, real_ct):
    straight = scorer.score(real_ct / "cip_ct64.nrrd", FOUR)
    assert scorer.score(real_ct / "cip_ct64_PSR.nii.gz", FOUR).scores == straight.scores


def test_a_turned_copy_scores_nearer_to_its_original_than_any_other_scan_does(scorer, real_ct):
    """The oblique copy stands 15 and 12 degrees askew in its own axes, and the model sees it so."""
    labels = AbnormalityList.preset("ct-rate-18")

    def scores(path):
        return np.array([row.score for row in scorer.score(path, labels, force=True).scores])

    straight = scores(real_ct / "cip_ct64.nrrd")
    others = [case.path for case in find_cases([real_ct]) if not case.name.startswith("cip_ct64")]
    apart = np.abs(scores(real_ct / "cip_ct64_oblique.nii.gz") - straight).mean()
    assert len(others) >= 6 and apart < min(np.abs(scores(path) - straight).mean() for path in others)


def test_thresholds_come_from_the_list_before_the_calibration(scorer, torso_path):
    low = AbnormalityList("low", (Abnormality("Emphysema", threshold=-2.0), Abnormality("Rib fracture", threshold=2.0)))
    scores = scorer.score(torso_path, low)
    assert scores["Emphysema"].positive is True and scores["Rib fracture"].positive is False
    assert scores["Emphysema"].probability is None


def test_a_changed_negative_prompt_has_no_calibrated_threshold(torso_path, tmp_path):
    folder = shutil.copytree(open_weights("phantom").folder, tmp_path / "weights")
    entry = {"prompt": "There is Emphysema", "negative_prompt": "There is no Emphysema", "style": "pair"}
    entry |= {"score": "final", "threshold": -2.0, "platt": {"a": 1.0, "b": 0.0}, "n": 9, "positives": 3}
    content = {"version": 1, "abnormalities": {"Emphysema": entry}}
    (folder / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    scorer = Scorer.from_pretrained(folder, device="cpu", precision="fp32", cache=False)
    embedding = scorer.embed(torso_path)
    fitted, changed = (
        scorer.score_embedding(embedding, AbnormalityList("one", (abnormality,)), prompts="pair").scores[0]
        for abnormality in (
            Abnormality("Emphysema"),
            Abnormality("Emphysema", negative_prompts=("The lungs are clear",)),
        )
    )
    assert (fitted.threshold, fitted.positive) == (-2.0, True)
    assert fitted.probability == pytest.approx(1 / (1 + math.exp(-fitted.score)))
    assert (changed.threshold, changed.positive, changed.probability) == (None, None, None)


def test_a_result_survives_its_json(scorer, torso_path):
    scores = scorer.score(torso_path, FOUR)
    again = ScanScores.from_dict(json.loads(json.dumps(scores.to_dict())))
    assert again.scores == scores.scores and again.findings == scores.findings and again.flags == scores.flags


def test_two_folders_with_a_broken_link_are_two_scans(scorer, save_series, tmp_path):
    for name, steps in (("a", np.arange(0.0, 300.0, 10.0)), ("b", np.arange(-400.0, 100.0, 5.0))):
        (save_series(tmp_path / name, steps) / "gone.dcm").symlink_to(tmp_path / "nowhere")
    first, second = (scorer.embed(tmp_path / name, force=True) for name in "ab")
    assert (first.case, second.case) == ("a", "b") and not np.allclose(first.image, second.image)


def test_a_scan_that_is_kept_takes_the_name_that_is_asked_for(scorer, torso_path):
    assert [scorer.embed(torso_path, case=name).case for name in ("a", "b", None)] == ["a", "b", "torso"]


def test_the_checks_look_at_the_part_of_the_scan_that_these_weights_see(scorer, save_lungs_behind):
    """Lungs 150 mm behind the middle lie outside the 288 mm that `phantom` sees from front to back."""
    found = [
        [
            row.message
            for row in scorer.embed(save_lungs_behind(mm), force=True).findings
            if row.code == "lungs-off-centre"
        ]
        for mm in (0, 150)
    ]
    assert found[0] == [] and "central 384 x 288 x 384 mm" in found[1][0]


def test_settings_differ_when_scores_would(scorer):
    settings = scorer.settings(FOUR, "single", "final")
    digest = settings_digest(settings, FOUR)
    assert digest == settings_digest({**settings, "device": "cuda"}, FOUR)
    for key, other in (
        ("weights_checksum", "x"),
        ("calibration", "x"),
        ("fidelity", "reference"),
        ("score", "bank"),
        ("prompts", "pair"),
    ):
        assert digest != settings_digest({**settings, key: other}, FOUR)
    assert digest != settings_digest(settings, AbnormalityList.from_names(FOUR.names[:3]))


def test_what_the_model_reads_otherwise_than_written_is_said(scorer, torso_path):
    odd = AbnormalityList("odd", (Abnormality("Nodule", prompts=("Nodule of 3.5 mm is seen",)),))
    messages = scorer.score(torso_path, odd).messages
    assert 'prompt "Nodule of 3.5 mm is seen" reaches the model as "nodule of 5 mm is seen"' in messages


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "tpu"}, UsageError, "unknown device 'tpu'"),
        ({"device": "cuda"}, SetupError, "no CUDA device"),
        ({"precision": "int3"}, UsageError, "unknown precision 'int3'"),
        ({"device": "cpu", "precision": "fp16"}, UsageError, "fp16 needs an accelerator"),
        ({"fidelity": "nearly"}, UsageError, "unknown fidelity 'nearly'"),
    ],
)
def test_bad_options_are_named(options, error, words):
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(error, match=words):
        Scorer.from_pretrained("phantom", **options)


def test_an_unknown_score_or_prompt_style_is_refused_before_the_scan_is_read(scorer):
    with pytest.raises(UsageError, match="unknown score 'best'"):
        scorer.score("no-such-file.nii.gz", FOUR, kind="best")
    with pytest.raises(InputError, match=r"no-such-file\.nii\.gz"):
        scorer.score("no-such-file.nii.gz", FOUR)


def test_memory_that_runs_out_is_said_in_one_line(scorer, torso_paths, monkeypatch):
    from brgsa.errors import OutOfMemoryError

    def too_large(volume):
        return torch.empty(1 << 50)

    monkeypatch.setattr(scorer.model, "embed_image", too_large)
    with pytest.raises(OutOfMemoryError, match="not enough memory"):
        scorer.embed(torso_paths[2])
