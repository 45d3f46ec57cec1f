"""Reading embeddings and reports, and pairing them."""

import json

import numpy as np
import pytest

from brgsa.errors import InputError, UsageError
from brgsa_training.evaluate.pairs import Embeddings, embed_reports, pair, read_embeddings, read_reports

RNG = np.random.default_rng(0)


def folder_of(tmp_path, cases, **arrays):
    (tmp_path / "embeddings").mkdir()
    lines = ["case,path,embedding"]
    for case in cases:
        content = {"image": RNG.normal(size=4).astype(np.float32), "image_from_bank": np.ones(4, np.float32)} | arrays
        np.savez(tmp_path / "embeddings" / f"{case}.npz", **content)
        lines.append(f"{case},/x/{case}.nii.gz,embeddings/{case}.npz")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def one_line(function, *args, error=InputError):
    with pytest.raises(error) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_brgsa_embed_is_read(tmp_path):
    found = read_embeddings(folder_of(tmp_path, ["a", "b"]))
    assert found.cases == ("a", "b")
    assert found.vectors.shape == found.from_bank.shape == (2, 4)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    folder_of(tmp_path, ["a"])
    (tmp_path / "manifest.csv").write_text("case,path,embedding\na,x,../../etc/a.npz\n", encoding="utf-8")
    assert "outside" in one_line(read_embeddings, tmp_path)


def test_bad_embeddings_are_refused_in_one_line(tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    assert "not finite" in one_line(read_embeddings, folder_of(bad, ["a"], image=np.full(4, np.nan, np.float32)))
    np.savez(tmp_path / "short.npz", cases=np.array(["a"]), embeddings=np.ones((2, 4), np.float32))
    assert "1 cases, but embeddings of shape (2, 4)" in one_line(read_embeddings, tmp_path / "short.npz")
    np.savez(tmp_path / "double.npz", cases=np.array(["a", "a"]), embeddings=np.ones((2, 4), np.float32))
    assert "twice" in one_line(read_embeddings, tmp_path / "double.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "short.npz").read_bytes()[:100])
    assert "not readable" in one_line(read_embeddings, tmp_path / "cut.npz")
    assert "cannot be read" in one_line(read_embeddings, bad / "embeddings")


def test_reports_are_read_from_findings_and_impression_and_from_captions(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("VolumeName,Findings_EN,Impressions_EN\na.nii.gz,Clear lungs.,Normal.\n", encoding="utf-8")
    assert read_reports(path) == {"a": "Clear lungs. Normal."}
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"test": {"a": {"images": [], "processed_report": ["x", "y"]}}}), encoding="utf-8")
    assert read_reports(path) == {"a": "x y"}
    path.write_text(json.dumps({"a": "text"}), encoding="utf-8")
    assert read_reports(path) == {"a": "text"}
    path.write_text("{}", encoding="utf-8")
    assert "holds no reports" in one_line(read_reports, path, error=UsageError)


def test_an_empty_report_is_named(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("case,report\na,fine\nb,\n", encoding="utf-8")
    assert "row 3 (case 'b')" in one_line(read_reports, path)


def test_a_report_of_a_study_serves_all_its_scans_and_leftovers_are_noted():
    image = Embeddings(("s_1", "s_2", "t_1"), np.eye(3, dtype=np.float32), None)
    text = Embeddings(("s", "u"), np.ones((2, 3), np.float32), None)
    names = {"s_1": ("p", "s"), "s_2": ("p", "s"), "t_1": ("q", "t")}
    pairs, notes = pair(image, text, names)
    assert pairs.image.cases == ("s_1", "s_2")
    assert pairs.patients == ("p", "p")
    assert notes == ["1 scans have no report, first 't_1'", "1 reports have no scan, first 'u'"]
    with pytest.raises(InputError, match="same weights"):
        pair(image, Embeddings(("s",), np.ones((1, 5), np.float32), None), names)
    with pytest.raises(InputError, match="no scan has a report"):
        pair(image, Embeddings(("z",), np.ones((1, 3), np.float32), None), names)


def test_equal_reports_get_equal_embeddings_from_the_model():
    found = embed_reports(
        {"a": "There is cardiomegaly.", "b": "Clear.", "c": "There is cardiomegaly."}, "phantom", "cpu"
    )
    np.testing.assert_array_equal(found.vectors[0], found.vectors[2])
    assert not np.array_equal(found.vectors[0], found.vectors[1])
    assert found.from_bank.shape == found.vectors.shape
