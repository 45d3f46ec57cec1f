"""Pictures survive the way through PNG."""

import io

import matplotlib.image
import numpy as np
import pytest

from brgsa.report.png import data_uri, png


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1), (300, 2, 4)])
def test_another_reader_sees_the_same_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    read = matplotlib.image.imread(io.BytesIO(png(pixels)), format="png")
    np.testing.assert_array_equal(np.rint(read * 255).astype(np.uint8), pixels)


def test_the_text_form_is_a_data_uri():
    assert data_uri(np.zeros((2, 2), np.uint8)).startswith("data:image/png;base64,iVBOR")
