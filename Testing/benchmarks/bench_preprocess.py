"""Time the way from a CT file to the encoder's input: brgsa, the released steps, and a MONAI chain, side by side.

    python Testing/benchmarks/bench_preprocess.py --repeats 5 --threads 1

The scan is synthetic, 512 x 512 x 300 int16 `.nii.gz`. With voxels of 0.75 x 0.75 x 1.0 mm every sample falls on a
voxel; with 0.703 x 0.703 x 1.25 mm hardly any does, as in most real scans. The released steps are given without and
with the file that they write and read again. MONAI's `Spacing` may return one slice more, which moves the padding by
one slice and the scan with it. Each method runs once before it is timed; the runs take turns.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import monai
import nibabel
import numpy as np
import SimpleITK
import torch
import volumes

from brgsa.ct.volume import read_ct
from brgsa.preprocess import PreprocessingPlan, grid_to_ct, to_grid, to_input

PLAN = PreprocessingPlan()
SPACINGS = ((0.75, 0.75, 1.0), (0.703, 0.703, 1.25))


def ours(path):
    hu, _ = to_grid(read_ct(path), PLAN)
    return to_input(hu, PLAN)


def released_volume(path):
    """Read, rescale, resample the whole volume in its pixel type, crop, pad, clamp; return (Z, Y, X) int16."""
    image = SimpleITK.ReadImage(str(path))
    image = image * 1.0 + 0.0
    size = [round(n * s / t) for n, s, t in zip(image.GetSize(), image.GetSpacing(), PLAN.spacing, strict=True)]
    resample = SimpleITK.ResampleImageFilter()
    resample.SetOutputSpacing(PLAN.spacing)
    resample.SetSize(size)
    resample.SetOutputOrigin(image.GetOrigin())
    resample.SetOutputDirection(image.GetDirection())
    resample.SetInterpolator(SimpleITK.sitkLinear)
    voxels = SimpleITK.GetArrayFromImage(resample.Execute(image))
    for axis, wanted in enumerate(PLAN.shape[::-1]):
        extra = voxels.shape[axis] - wanted
        if extra > 0:
            voxels = np.take(voxels, range((extra + 1) // 2, (extra + 1) // 2 + wanted), axis=axis)
        elif extra < 0:
            margins = [(0, 0)] * 3
            margins[axis] = (-extra // 2, -extra - (-extra // 2))
            voxels = np.pad(voxels, margins, constant_values=-1024)
    return np.clip(voxels, -1000, 1000)


def released_input(hu):
    scaled = (np.clip(hu.astype(np.float32), -1000, 1000) + 1000) / 2000 * 2 - 1
    return ((scaled - np.float32(0.4978)) / np.float32(0.2449))[np.newaxis]


def released(path):
    return released_input(released_volume(path).transpose(2, 1, 0))


def released_with_file(path):
    """The same, with the preprocessed file written and read again as the released code does."""
    image = SimpleITK.GetImageFromArray(released_volume(path))
    image.SetSpacing(PLAN.spacing)
    between = path.with_name("preprocessed.nii.gz")
    SimpleITK.WriteImage(image, str(between))
    return released_input(nibabel.load(between).get_fdata())


def monai_chain():
    from monai import transforms

    return transforms.Compose(
        [
            transforms.LoadImage(image_only=True, ensure_channel_first=True),
            transforms.Orientation(axcodes="LPS", labels=None),
            transforms.Spacing(pixdim=PLAN.spacing, mode="bilinear"),
            transforms.ResizeWithPadOrCrop(PLAN.shape, constant_values=-1024),
            transforms.ScaleIntensityRange(*PLAN.clip_hu, -1, 1, clip=True),
            transforms.NormalizeIntensity(subtrahend=PLAN.mean, divisor=PLAN.std),
        ]
    )


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def stages(path):
    """Return seconds of each step of ours, and of the way back."""
    read, volume = timed(read_ct, path)
    resample, (hu, grid) = timed(to_grid, volume, PLAN)
    scale, _ = timed(to_input, hu, PLAN)
    back, _ = timed(grid_to_ct, hu, grid)
    reference, _ = timed(to_grid, volume, PLAN, "reference")
    return {"read_ct": read, "to_grid": resample, "to_input": scale, "grid_to_ct": back, "to_grid reference": reference}


def compare(folder, spacing, repeats):
    path = volumes.write_chest(folder / "chest.nii.gz", spacing=spacing)
    ratio = 2 * np.prod(volumes.SHAPE) / path.stat().st_size
    methods = {
        "brgsa": ours,
        "released, without file": released,
        "released, with file": released_with_file,
        "MONAI chain": monai_chain(),
    }
    seconds = {name: [] for name in methods}
    results = {name: np.asarray(method(path)) for name, method in methods.items()}
    steps = []
    for _ in range(repeats):
        for name, method in methods.items():
            seconds[name].append(timed(method, path)[0])
        steps.append(stages(path))
    median = {name: statistics.median(times) for name, times in seconds.items()}

    print(f"\n### Voxels of {' x '.join(map(str, spacing))} mm, compressed {ratio:.2f} to 1\n")
    print("| method | median s | fastest s | brgsa's share | goal | mean difference from brgsa, HU |")
    print("|---|---|---|---|---|---|")
    goals = {"released, without file": 0.5, "released, with file": 0.5, "MONAI chain": 0.1}
    for name in methods:
        share = median["brgsa"] / median[name]
        goal = f"{goals[name]:.2f}: {'reached' if share <= goals[name] else 'missed'}" if name in goals else ""
        apart = np.abs(results[name] - results["brgsa"]).mean() * PLAN.std * 1000
        print(f"| {name} | {median[name]:.3f} | {min(seconds[name]):.3f} | {share:.2f} | {goal} | {apart:.3f} |")
    print("\n| step of brgsa | median s |\n|---|---|")
    for name in steps[0]:
        print(f"| {name} | {statistics.median(step[name] for step in steps):.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each method (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of SimpleITK and torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
    print(
        f"{options.threads} threads, {options.repeats} repeats; SimpleITK {SimpleITK.Version.VersionString()}, "
        f"MONAI {monai.__version__}, numpy {np.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for spacing in SPACINGS:
            compare(Path(folder), spacing, options.repeats)


if __name__ == "__main__":
    main()
