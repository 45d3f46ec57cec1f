"""A scored scan with heat maps that the report tests share."""

from types import SimpleNamespace

import pytest

from brgsa.abnormalities import AbnormalityList
from brgsa.heatmap import heatmaps
from brgsa.scoring import Scorer


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """Scorer, prepared scan, scores and two heat maps of a small scan."""
    import nibabel
    import numpy as np

    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (64, 56, 60)), indexing="ij")
    hu = np.full(x.shape, -1000.0)
    hu[x**2 + y**2 < 0.9] = 30
    hu[((abs(x) - 0.45) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850
    hu += np.random.default_rng(0).normal(0, 20, hu.shape)
    path = tmp_path_factory.mktemp("scan") / "Doe_Jane" / "scan.nii.gz"
    path.parent.mkdir()
    nibabel.Nifti1Image(hu.round().astype(np.int16), np.diag([-6.0, -6.0, 6.0, 1.0])).to_filename(path)
    abnormalities = AbnormalityList.preset("ct-rate-18")
    scorer = Scorer.from_pretrained("phantom", device="cpu", precision="fp32", cache=False)
    scan = scorer.prepare(path)
    scores = scorer.score_embedding(scorer.embed(scan), abnormalities)
    maps = list(heatmaps(scorer, scan, abnormalities[:2]))
    return SimpleNamespace(scorer=scorer, scan=scan, scores=scores, maps=maps, abnormalities=abnormalities)
