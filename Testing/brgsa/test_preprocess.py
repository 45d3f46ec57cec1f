"""Preprocessing against the released pipeline's numbers, against an independent computation, and by its properties."""

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from brgsa.errors import InputError, SetupError, UsageError
from brgsa.preprocess import ModelGrid, PreprocessingPlan, grid_to_ct, rescale_reference, to_grid, to_input

SMALL = PreprocessingPlan(shape=(12, 10, 8))


@dataclass(frozen=True)
class Volume:
    voxels: np.ndarray
    spacing: tuple
    affine: np.ndarray

    @classmethod
    def of(cls, voxels, spacing=(1.5, 1.5, 3.0), origin=(0.0, 0.0, 0.0)):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = origin
        return cls(voxels, tuple(spacing), affine)


def noise(shape, seed=0, low=-1024, high=1500, dtype=np.int16):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def true_grid(voxels, spacing, plan):
    """The grid in float64, corner by corner, from the words of the specification; independent of the package."""
    out = np.full(plan.shape, -1000.0)
    size = [round(n * s / t) for n, s, t in zip(voxels.shape, spacing, plan.spacing, strict=True)]
    positions = []
    for axis, (wanted, resampled) in enumerate(zip(plan.shape, size, strict=True)):
        crop = math.ceil(max(resampled - wanted, 0) / 2)
        pad = max(wanted - resampled, 0) // 2
        position = np.full(wanted, np.nan)
        for index in range(min(wanted, resampled)):
            sample = (index + crop) * plan.spacing[axis] / spacing[axis]
            if sample < voxels.shape[axis] - 0.5 - 1e-6:
                position[pad + index] = min(sample, voxels.shape[axis] - 1)
        positions.append(position)
    x, y, z = np.meshgrid(*positions, indexing="ij")
    inside = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    points = np.stack([x[inside], y[inside], z[inside]])
    base = np.floor(points).astype(int)
    fraction = points - base
    total = np.zeros(points.shape[1])
    for corner in np.ndindex(2, 2, 2):
        offset = np.array(corner)[:, None]
        index = np.minimum(base + offset, np.array(voxels.shape)[:, None] - 1)
        weight = np.prod(np.where(offset == 1, fraction, 1 - fraction), axis=0)
        total += weight * voxels[tuple(index)].astype(np.float64)
    out[inside] = total
    return np.clip(out, -1000, 1000), inside


# --- reference fidelity: the released pipeline -------------------------------------------------------------------


def test_reference_repeats_the_released_pipeline_bit_for_bit(parity):
    cases = json.loads((parity / "preprocess.json").read_text())["cases"]
    arrays = np.load(parity / "preprocess.npz")
    assert len(cases) == 7
    for case in cases:
        voxels = arrays[f"{case['name']}__in_zyx"].T
        if case["cast_float32"]:
            voxels = voxels.astype(np.float32)
        plan = PreprocessingPlan(shape=tuple(case["target_shape_zyx"][::-1]))
        hu, grid = to_grid(Volume.of(voxels, case["spacing_xyz"]), plan, fidelity="reference")
        assert grid.resampled_shape == tuple(case["resampled_shape_zyx"][::-1]), case["name"]
        assert hu.dtype == np.float32
        np.testing.assert_array_equal(hu, arrays[f"{case['name']}__nib_xyz"], err_msg=case["name"])


def test_a_row_of_the_ct_rate_table_is_reproduced_from_stored_values(parity):
    row = json.loads((parity / "preprocess.json").read_text())["ctrate_row"]
    arrays = np.load(parity / "preprocess.npz")
    metadata = row["metadata"]
    spacing = (*json.loads(metadata["XYSpacing"]), metadata["ZSpacing"])
    voxels = rescale_reference(arrays["ctrate_row__in_zyx"].T, metadata["RescaleSlope"], metadata["RescaleIntercept"])
    cosines = np.reshape(json.loads(metadata["ImageOrientationPatient"]), (2, 3))
    affine = np.eye(4)
    affine[:3, :3] = np.vstack([cosines, np.cross(*cosines)]) * spacing
    affine[:3, 3] = json.loads(metadata["ImagePositionPatient"])
    plan = PreprocessingPlan(shape=tuple(row["target_shape_zyx"][::-1]))
    hu, _ = to_grid(Volume(voxels, spacing, affine), plan, fidelity="reference")
    np.testing.assert_array_equal(hu, arrays["ctrate_row__nib_xyz"])


def test_rescaling_keeps_the_pixel_type_as_the_released_code_does(parity):
    cases = json.loads((parity / "preprocess.json").read_text())["hu_rescale_pixel_types"]
    stored = [0, 1, 100, 1023, 2000]
    for name, expected in cases.items():
        dtype, slope, intercept = name.split("|")
        hu = rescale_reference(np.array(stored, dtype=dtype), float(slope), float(intercept))
        assert hu.dtype == dtype, name
        assert hu.tolist() == expected["values"], name


def test_the_input_transform_is_the_released_one_bit_for_bit(parity):
    arrays = np.load(parity / "image_transform.npz")
    np.testing.assert_array_equal(to_input(arrays["hu_xyz"], PreprocessingPlan()), arrays["test_out"])
    offsets = arrays["train_offsets"]
    for crop, (x, y, z) in zip(arrays["train_out"], offsets, strict=True):
        part = arrays["hu_xyz"][x : x + 6, y : y + 6, z : z + 4]
        np.testing.assert_array_equal(to_input(part, PreprocessingPlan()), crop)


def test_the_input_transform_leaves_its_argument_alone():
    hu = np.full((2, 3, 4), 40.0, np.float32)
    to_input(hu, SMALL)
    assert (hu == 40).all()


# --- exact fidelity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((40, 36, 30), (0.7, 0.9, 1.25)),  # cropped
        ((9, 8, 7), (1.1, 1.3, 2.5)),  # padded
        ((21, 5, 40), (0.8, 1.9, 0.625)),  # both
        ((7, 7, 4), (2.6, 2.6, 4.9)),  # thick slices: a sample beyond the last half voxel
        ((24, 20, 24), (0.75, 0.75, 1.0)),  # every sample on a voxel
        ((6, 6, 4), (3.0, 3.0, 6.0)),  # last sample exactly on the border
    ],
)
@pytest.mark.parametrize("limit", [1500, 32767])
def test_exact_is_within_a_thousandth_hu_of_a_float64_computation(shape, spacing, limit):
    voxels = noise(shape, high=limit)
    hu, _ = to_grid(Volume.of(voxels, spacing), SMALL)
    expected, _ = true_grid(voxels, spacing, SMALL)
    assert hu.dtype == np.float32
    assert np.abs(hu - expected).max() < 1e-3


def test_exact_has_air_where_the_released_pipeline_has_water():
    soft = np.full((7, 7, 4), 60, np.int16)
    volume = Volume.of(soft, (2.6, 2.6, 4.9))
    exact, _ = to_grid(volume, SMALL)
    reference, _ = to_grid(volume, SMALL, fidelity="reference")
    assert 0 in reference
    assert set(np.unique(exact)) == {-1000.0, 60.0}
    np.testing.assert_array_equal(exact == -1000, (reference == 0) | (reference == -1000))


def test_a_sharp_edge_of_the_scan_is_not_mixed_with_what_lies_beyond():
    hu, grid = to_grid(Volume.of(np.full((5, 5, 5), 500, np.int16), (1.4, 1.4, 2.9)), SMALL)
    assert grid.kept_shape == (5, 5, 5)
    assert set(np.unique(hu)) == {-1000.0, 500.0}


def scan(dims):
    return st.tuples(*[st.integers(5, top) for top in dims])


SPACINGS = st.tuples(st.floats(0.4, 3.0), st.floats(0.4, 3.0), st.floats(0.6, 7.0))


@settings(max_examples=60, deadline=None)
@given(shape=scan((30, 26, 24)), spacing=SPACINGS, seed=st.integers(0, 99), dtype=st.sampled_from(["int16", "float32"]))
def test_any_scan_lands_on_the_plan_s_shape_and_range_and_agrees_with_the_true_values(shape, spacing, seed, dtype):
    voxels = noise(shape, seed=seed, low=-3000, high=3000, dtype=dtype)
    volume = Volume.of(voxels, spacing, origin=(-150.0, 12.5, 900.0))
    exact, grid = to_grid(volume, SMALL)
    reference, _ = to_grid(volume, SMALL, fidelity="reference")
    for hu in (exact, reference):
        assert hu.shape == SMALL.shape
        assert hu.min() >= -1000
        assert hu.max() <= 1000
    expected, inside = true_grid(voxels, spacing, SMALL)
    assert np.abs(exact - expected).max() < 1e-3
    # Whole numbers are cut, not rounded, by the released pipeline: up to one HU apart.
    assert np.abs(exact - reference)[inside].max() < (1.001 if dtype == "int16" else 2e-3)
    assert grid.kept_shape == tuple(map(min, grid.resampled_shape, SMALL.shape))


@settings(max_examples=40, deadline=None)
@given(shape=scan((30, 26, 24)), spacing=SPACINGS, value=st.integers(-999, 1000))
def test_a_constant_scan_stays_constant_inside_the_field(shape, spacing, value):
    hu, grid = to_grid(Volume.of(np.full(shape, value, np.int16), spacing), SMALL)
    assert set(np.unique(hu)) <= {-1000.0, float(value)}
    for lower, kept, axis in zip(grid.pad_lower, grid.kept_shape, range(3), strict=True):
        along = np.flatnonzero((hu == value).any(axis=tuple({0, 1, 2} - {axis})))
        assert along[0] == lower
        assert along[-1] in (lower + kept - 1, lower + kept - 2)  # the last may lie beyond the scan's last half voxel


def test_every_memory_layout_and_flipped_view_gives_the_very_same_numbers():
    voxels = noise((31, 28, 26), seed=3)
    spacing = (0.83, 0.77, 1.6)
    expected, grid = to_grid(Volume.of(voxels, spacing), SMALL)
    marks = np.random.default_rng(1).normal(size=SMALL.shape).astype(np.float32)
    for axes in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)):
        stored = np.ascontiguousarray(voxels.transpose(axes)).transpose(np.argsort(axes))
        flipped = np.ascontiguousarray(stored[::-1, :, ::-1])[::-1, :, ::-1]
        for same in (stored, flipped, stored.astype(">i2")):
            hu, _ = to_grid(Volume.of(same, spacing), SMALL)
            np.testing.assert_array_equal(hu, expected)
            reference, _ = to_grid(Volume.of(same, spacing), SMALL, fidelity="reference")
            np.testing.assert_array_equal(reference, to_grid(Volume.of(voxels, spacing), SMALL, "reference")[0])
        laid_out = np.ascontiguousarray(marks.transpose(axes)).transpose(np.argsort(axes))
        np.testing.assert_array_equal(grid_to_ct(laid_out, grid), grid_to_ct(marks, grid))
        np.testing.assert_array_equal(to_input(laid_out, SMALL), to_input(marks, SMALL))


def test_the_scan_is_not_changed():
    voxels = noise((20, 20, 20))
    before = voxels.copy()
    for fidelity in ("exact", "reference"):
        to_grid(Volume.of(voxels, (0.9, 0.9, 2.0)), SMALL, fidelity)
    np.testing.assert_array_equal(voxels, before)


# --- back to the scan --------------------------------------------------------------------------------------------

WIDE = PreprocessingPlan(shape=(40, 36, 24))
ROUND_TRIPS = [
    ((90, 84, 70), (0.8, 0.8, 1.25)),  # cropped in x and y
    ((48, 44, 40), (0.9, 0.9, 1.6)),  # padded
    ((60, 56, 12), (0.75, 0.75, 5.0)),  # thick slices
]


def centres(shape, spacing):
    return np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij", sparse=True)


@pytest.mark.parametrize(("shape", "spacing"), ROUND_TRIPS)
def test_a_linear_map_comes_back_as_it_was_and_fill_lies_outside_the_field(shape, spacing):
    x, y, z = centres(shape, spacing)
    ramp = (2.0 * x - 3.0 * y + 1.5 * z).astype(np.float32)
    hu, grid = to_grid(Volume.of(ramp, spacing), WIDE)
    back = grid_to_ct(hu, grid, fill=-7777.0)
    assert back.shape == shape
    assert back.dtype == np.float32
    field = np.ones(shape, bool)
    known = np.ones(shape, bool)
    for axis, (along, new) in enumerate(zip((x, y, z), WIDE.spacing, strict=True)):
        place = along / new - grid.crop_lower[axis]
        field &= (place >= -0.5) & (place < grid.kept_shape[axis] - 0.5 - 1e-6)
        last = min(grid.kept_shape[axis], math.ceil((shape[axis] - 0.5) * spacing[axis] / new)) - 1
        known &= (place >= 0) & (place <= last) & (along <= (shape[axis] - 1) * spacing[axis] - new)
    assert (back[~field] == -7777).all()
    assert (back[field] > -7777).all()
    assert known.any()
    np.testing.assert_allclose(back[known], ramp[known], atol=2e-3)


@pytest.mark.parametrize(("shape", "spacing"), ROUND_TRIPS)
def test_smooth_blobs_come_back_in_place(shape, spacing):
    x, y, z = centres(shape, spacing)
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    blob = np.zeros(shape)
    for place, width in (((0.4, 0.5, 0.45), 11.0), ((0.6, 0.4, 0.6), 14.0)):
        cx, cy, cz = (share * length for share, length in zip(place, extent, strict=True))
        blob += 450 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * width**2))
    hu, grid = to_grid(Volume.of(blob.astype(np.float32), spacing), WIDE)
    back = grid_to_ct(hu, grid)
    inner = tuple(slice(n // 4, -(n // 4)) for n in shape)
    assert np.abs(back - blob)[inner].max() < 0.03 * blob.max()
    assert np.corrcoef(back[inner].ravel(), blob[inner].ravel())[0, 1] > 0.999


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=scan((60, 60, 40)), spacing=SPACINGS)
def test_a_marked_voxel_of_the_grid_comes_back_at_its_place(data, shape, spacing):
    grid = ModelGrid.of(Volume.of(np.zeros(shape, np.int16), spacing), SMALL)
    mark = [
        data.draw(st.integers(low, low + kept - 1)) for low, kept in zip(grid.pad_lower, grid.kept_shape, strict=True)
    ]
    values = np.zeros(SMALL.shape, np.float32)
    values[tuple(mark)] = 1
    for order in ("linear", "nearest"):
        back = grid_to_ct(values, grid, order)
        reach = 1.0 if order == "linear" else 0.5
        for axis, index in enumerate(np.nonzero(back)):
            centre = (mark[axis] - grid.pad_lower[axis] + grid.crop_lower[axis]) * SMALL.spacing[axis]
            assert (np.abs(index * spacing[axis] - centre) <= reach * SMALL.spacing[axis] * (1 + 1e-6)).all()
        if order == "nearest":
            assert set(np.unique(back)) <= {0.0, 1.0}
            assert (back == 1).any() or any(s > t / 2 for s, t in zip(spacing, SMALL.spacing, strict=True))


def test_the_way_back_agrees_with_simpleitk():
    shape, spacing = (50, 46, 44), (0.8, 0.9, 1.3)
    plan = PreprocessingPlan(shape=(40, 40, 24))
    grid = ModelGrid.of(Volume.of(np.zeros(shape, np.int16), spacing), plan)
    assert grid.crop_lower == (0, 0, 0)
    values = np.random.default_rng(2).normal(size=plan.shape).astype(np.float32)
    seen = tuple(slice(low, low + kept) for low, kept in zip(grid.pad_lower, grid.kept_shape, strict=True))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values[seen].T))
    image.SetSpacing(plan.spacing)
    for order, interpolator in (("linear", SimpleITK.sitkLinear), ("nearest", SimpleITK.sitkNearestNeighbor)):
        expected = SimpleITK.Resample(
            image, shape, SimpleITK.Transform(), interpolator, (0, 0, 0), spacing, (1, 0, 0, 0, 1, 0, 0, 0, 1), 9.0
        )
        expected = SimpleITK.GetArrayFromImage(expected).T
        np.testing.assert_allclose(grid_to_ct(values, grid, order, fill=9.0), expected, atol=1e-5)


def test_values_on_the_padding_do_not_come_back():
    grid = ModelGrid.of(Volume.of(np.zeros((6, 6, 6), np.int16), (1.0, 1.0, 2.0)), SMALL)
    values = np.full(SMALL.shape, 99.0, np.float32)
    seen = tuple(slice(low, low + kept) for low, kept in zip(grid.pad_lower, grid.kept_shape, strict=True))
    values[seen] = 1.0
    assert set(np.unique(grid_to_ct(values, grid))) <= {0.0, 1.0}


# --- the plan ----------------------------------------------------------------------------------------------------


def test_the_plan_survives_being_saved(tmp_path):
    plan = PreprocessingPlan(spacing=(2.0, 2.0, 4.0), shape=(32, 32, 16), mean=0.1)
    plan.save(tmp_path / "preprocessor_config.json")
    loaded = PreprocessingPlan.load(tmp_path / "preprocessor_config.json")
    assert loaded == plan
    assert hash(loaded) == hash(plan)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"version": 2}, "version is 2"),
        ({"version": 2, "new": 1}, "version is 2"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"mean": None}, "mean"),
        ({"mean": True}, "mean"),
        ({"mean": math.nan}, "mean"),
        ({"std": 0}, "std"),
        ({"spacing": [1.5, 1.5]}, "spacing"),
        ({"spacing": [1.5, 1.5, "3"]}, "spacing"),
        ({"spacing": [1.5, 1.5, -3]}, "spacing"),
        ({"spacing": 1.5}, "spacing"),
        ({"shape": [256, 256, 12.5]}, "shape"),
        ({"shape": [256, 0, 128]}, "shape"),
        ({"clip_hu": [1000, -1000]}, "clip_hu"),
        ({"padding_hu": "air"}, "padding_hu"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_in_one_line(tmp_path, change, word):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(PreprocessingPlan().to_dict() | change))
    with pytest.raises(SetupError) as caught:
        PreprocessingPlan.load(path)
    assert word in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_file_that_is_missing_incomplete_or_not_json_is_named(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    for content in (None, "", "[]", "{", json.dumps({"version": 1}), b"\xff\xfe"):
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(SetupError, match=r"preprocessor_config\.json") as caught:
            PreprocessingPlan.load(path)
        assert "\n" not in str(caught.value)


# --- bad scans and maps ------------------------------------------------------------------------------------------

CUBE = np.zeros((8, 8, 8), np.int16)


@pytest.mark.parametrize(
    ("voxels", "spacing", "word"),
    [
        (CUBE[:, :, :0], (1, 1, 1), "8 x 8 x 0"),
        (CUBE[:, :, :1], (1, 1, 1), "8 x 8 x 1"),
        (CUBE[0], (1, 1, 1), "8 x 8 voxels"),
        (CUBE[None], (1, 1, 1), "1 x 8 x 8 x 8"),
        (CUBE, (1e-6, 1, 1), "8e-06"),
        (CUBE, (1, 1, 1e9), "is not a chest"),
        (CUBE, (0, 1, 1), "0 x 1 x 1 mm"),
        (CUBE, (1, -1, 1), "-1"),
        (CUBE, (1, math.nan, 1), "nan"),
        (CUBE, (math.inf, 1, 1), "inf"),
        (CUBE, (1, 1), "1 x 1 mm"),
        (CUBE.astype(bool), (1, 1, 1), "bool"),
        (CUBE.astype(np.uint8), (1, 1, 1), "uint8"),
        (CUBE.astype(complex), (1, 1, 1), "complex128"),
        (np.full((8, 8, 8), np.nan, np.float32), (1, 1, 1), "NaN"),
    ],
)
@pytest.mark.parametrize("fidelity", ["exact", "reference"])
def test_a_scan_that_cannot_be_resampled_is_refused_in_one_line(voxels, spacing, word, fidelity):
    with pytest.raises(InputError) as caught:
        to_grid(Volume(voxels, spacing, np.eye(4)), SMALL, fidelity)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_axes_that_do_not_span_space_are_refused():
    affine = np.eye(4)
    affine[:3, 2] = affine[:3, 1]
    with pytest.raises(InputError, match="span space"):
        to_grid(Volume(CUBE, (1.0, 1.0, 1.0), affine), SMALL, "reference")


def test_unknown_words_are_refused():
    grid = ModelGrid.of(Volume.of(CUBE), SMALL)
    with pytest.raises(UsageError, match="exact or reference"):
        to_grid(Volume.of(CUBE), SMALL, "fast")
    with pytest.raises(UsageError, match="linear or nearest"):
        grid_to_ct(np.zeros(SMALL.shape), grid, "cubic")


@pytest.mark.parametrize("values", [np.zeros((8, 10, 12)), np.zeros((1, 12, 10, 8)), np.zeros((12, 10, 8), complex)])
def test_a_map_that_does_not_fit_the_grid_is_refused_in_one_line(values):
    with pytest.raises(InputError, match="12 x 10 x 8") as caught:
        grid_to_ct(values, ModelGrid.of(Volume.of(CUBE), SMALL))
    assert "\n" not in str(caught.value)


def test_a_grid_survives_being_written_as_a_dictionary():
    grid = ModelGrid.of(Volume.of(CUBE, (0.7, 0.7, 1.0)), SMALL)
    assert ModelGrid(**dataclasses.asdict(grid)) == grid
