"""Reading and checking a 512 x 512 x 300 CT beside nibabel's and SimpleITK's own readers: medians of 5, one process.

Run: python Testing/benchmarks/bench_ct.py [FILE ...]     (files or DICOM folders to time as well)
"""

import gzip
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)

from brgsa.ct.checks import check_ct
from brgsa.ct.volume import read_ct

sys.path.insert(0, str(Path(__file__).parent))
from volumes import write_chest

ROUNDS = 5


def seconds(action) -> float:
    """Median time of `action` over a few rounds, after one that is not counted."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed = write_chest(Path(folder) / "chest.nii.gz")
        plain = packed.with_suffix("")
        with gzip.open(packed) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        print(f"{packed.name}: {packed.stat().st_size / 1e6:.0f} MB, {plain.stat().st_size / 1e6:.0f} MB unpacked")
        print("| what | s |\n|---|---|")
        for path in (packed, plain):
            print(f"| read_ct, {path.name} | {seconds(lambda p=path: read_ct(p)):.2f} |")
        print(f"| nibabel get_fdata, chest.nii.gz | {seconds(lambda: nibabel.load(packed).get_fdata()):.2f} |")
        print(f"| nibabel int16, chest.nii.gz | {seconds(lambda: np.asarray(nibabel.load(packed).dataobj)):.2f} |")
        print(f"| SimpleITK, chest.nii.gz | {seconds(lambda: sitk.ReadImage(str(packed))):.2f} |")
        volume = read_ct(packed)
        print(f"| check_ct, chest.nii.gz | {seconds(lambda: check_ct(volume)):.2f} |")
        for path in sys.argv[1:]:
            volume = read_ct(path)
            name = Path(path).name
            print(f"| read_ct, {name} | {seconds(lambda p=path: read_ct(p)):.2f} |")
            print(f"| check_ct, {name} | {seconds(lambda v=volume: check_ct(v)):.2f} |")


if __name__ == "__main__":
    main()
