"""Key slices show the right place in the radiologist's orientation."""

import numpy as np
import pytest

from brgsa.ct.volume import read_ct
from brgsa.heatmap import HeatMap
from brgsa.report.slices import LOWEST_SHOWN, coloured, key_slices, resize


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """A scan with a bright block at the left, back and top, and a map that points there."""
    import nibabel

    hu = np.full((50, 40, 30), -1000, np.int16)
    hu[40:46, 30:36, 22:26] = 500
    path = tmp_path_factory.mktemp("block") / "block.nii.gz"
    nibabel.Nifti1Image(hu, np.diag([-2.0, -2.0, 4.0, 1.0])).to_filename(path)
    heat = np.zeros(hu.shape, np.float32)
    heat[40:46, 30:36, 22:26] = 1
    heat_map = HeatMap("x", "rollout", np.zeros((1, 1, 1)), heat, (43, 33, 24), (0.0, 0.0, 0.0))
    return {cut.plane: cut for cut in key_slices(read_ct(path), heat_map)}


@pytest.mark.parametrize(
    "plane, size, place",
    [
        ("axial", (100, 80), (43 / 50, 33 / 40)),  # left is at the right, back is down
        ("coronal", (100, 120), (43 / 50, 1 - 24 / 30)),  # top is up
        ("sagittal", (80, 120), (33 / 40, 1 - 24 / 30)),  # front is at the left
    ],
)
def test_the_block_is_where_the_mark_and_the_layer_are(cuts, plane, size, place):
    cut = cuts[plane]
    assert (cut.width, cut.height) == size
    assert cut.mark == pytest.approx(place, abs=0.03)
    rows, columns = cut.grey.shape
    assert columns / rows == pytest.approx(cut.width / cut.height, rel=0.02)
    for picture in (cut.grey, cut.layer[..., 3]):
        bright = np.argwhere(picture > picture.max() * 0.9).mean(0) / picture.shape
        assert bright[::-1] == pytest.approx(place, abs=0.03)


def test_values_below_the_lowest_shown_are_transparent_and_cover_rises_with_the_value():
    layer = coloured(np.array([[0.0, LOWEST_SHOWN - 0.01, LOWEST_SHOWN, 0.6, 1.0]]))
    assert layer[0, :2, 3].tolist() == [0, 0]
    assert (np.diff(layer[0, 1:, 3].astype(int)) > 0).all()
    brightness = layer[0, 2:, :3].sum(-1).astype(int)
    assert (np.diff(brightness) > 0).all(), "a grey print keeps the order"


def test_resizing_keeps_a_ramp_and_the_mean():
    ramp = np.add.outer(np.arange(20.0), np.zeros(10)).astype(np.float32)
    for shape in ((20, 10), (40, 5), (7, 30)):
        resized = resize(ramp, shape)
        assert resized.shape == shape
        assert resized.mean() == pytest.approx(ramp.mean(), abs=0.01)
    assert resize(np.full((1, 1), 3.0, np.float32), (4, 4)).tolist() == [[3.0] * 4] * 4
