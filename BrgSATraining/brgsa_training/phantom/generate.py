"""Writing a data set of phantoms: volumes, masks, reports, labels and a manifest.

OUT/plan.json                        its options; a rerun with the same ones goes on, others are refused
OUT/volumes/CASE.nii.gz              int16 HU
OUT/masks/CASE/ABNORMALITY.nii.gz    uint8 0 or 1, on request
OUT/reports.csv                      case, findings, impression, as written
OUT/labels.csv, severity.csv         case and one column per abnormality: 0 or 1; 0 or 0.35 to 1
OUT/captions.json                    {split: {case: {"images": [...], "processed_report": [sentences]}}}
OUT/captions_without_summary.json    the same without the "There is X" sentences
OUT/manifest.csv                     case, seed, split, volume, sha256 of the volume; written last
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from brgsa.errors import OutOfMemoryError, UsageError, resumable
from brgsa.files import atomic_open, write_csv, write_json
from brgsa.files.output_folder import output_folder
from brgsa.processes import process_pool
from brgsa.text import clean_sentences
from brgsa_training.phantom.grid import Grid
from brgsa_training.phantom.output_folder import claim
from brgsa_training.phantom.phantom import make_phantom, make_report
from brgsa_training.phantom.prevalence import labels

VERSION = 1
# Case seeds of two data sets with different --seed never meet.
SEEDS_PER_SET = 10_000_000


@dataclass(frozen=True)
class Plan:
    """What decides the content of a data set: nothing else does, in particular not the number of workers."""

    count: int
    seed: int
    grid: tuple[int, int, int]
    split: dict[str, float]
    masks: bool
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 1 <= self.count <= SEEDS_PER_SET:
            raise UsageError(f"--count {self.count} is not possible: ask for 1 to {SEEDS_PER_SET:,} phantoms.")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is negative: use 0 or more.")

    def seeds(self) -> list[int]:
        """One seed per case."""
        return [self.seed * SEEDS_PER_SET + index for index in range(self.count)]

    def splits(self) -> list[str]:
        """One split per case: shares are met to the nearest case, which ones is drawn from the seed."""
        bounds = np.rint(np.cumsum(list(self.split.values())) * self.count)
        order = np.random.default_rng((self.seed, self.count)).permutation(self.count)
        return [list(self.split)[int(np.searchsorted(bounds, place, side="right"))] for place in order]


def parse_split(text: str) -> dict[str, float]:
    """Read "train=0.8,valid=0.1,test=0.1".

    Raises:
        UsageError: not names with shares that add up to 1.
    """
    split: dict[str, float] = {}
    try:
        for part in text.split(","):
            name, share = part.split("=")
            split[name.strip()] = float(share)
        good = len(split) == len(text.split(",")) and all(split) and all(0 <= share <= 1 for share in split.values())
    except ValueError:
        good = False
    if not good or abs(sum(split.values()) - 1) > 1e-6:
        raise UsageError(
            f"--split {text!r} is not a split: write names and shares that add up to 1, as in train=0.9,test=0.1."
        )
    return split


def generate(plan: Plan, out: Path, workers: int = 1) -> None:
    """Write a data set; cases that are complete from an earlier run with the same plan are kept.

    Raises:
        UsageError: the folder holds something else, or a data set made with other options.
        OutOfMemoryError: a worker process was killed.
        BrgSAError: the folder cannot be written or the disk is full; what is there stays usable for the next run.
    """
    with output_folder(out, "phantoms"):
        _generate(plan, out, workers)


def _generate(plan: Plan, out: Path, workers: int) -> None:
    claim(out, "plan.json", asdict(plan))
    seeds, splits = plan.seeds(), plan.splits()
    checksums = _write_cases(plan, out, workers)
    cases = [case_name(seed) for seed in seeds]
    reports = [make_report(seed) for seed in tqdm(seeds, desc="reports", unit="case", disable=len(seeds) < 2000)]
    names = labels()
    write_csv(
        out / "reports.csv",
        ("case", "findings", "impression"),
        ((case, " ".join(r.findings), " ".join(r.impression)) for case, (_, r) in zip(cases, reports, strict=True)),
    )
    write_csv(
        out / "labels.csv",
        ("case", *names),
        ((case, *(int(name in present) for name in names)) for case, (present, _) in zip(cases, reports, strict=True)),
    )
    write_csv(
        out / "severity.csv",
        ("case", *names),
        (
            (case, *(round(present.get(name, 0), 3) for name in names))
            for case, (present, _) in zip(cases, reports, strict=True)
        ),
    )
    for file, with_summary in (("captions.json", True), ("captions_without_summary.json", False)):
        captions: dict[str, dict] = {split: {} for split in plan.split}
        for case, split, (_, report) in zip(cases, splits, reports, strict=True):
            sentences = report.sentences + (report.summary if with_summary else ())
            captions[split][case] = {"images": [_volume(case)], "processed_report": captions_of(sentences)}
        write_json(out / file, captions)
    write_csv(
        out / "manifest.csv",
        ("case", "seed", "split", "volume", "sha256"),
        (
            (case, seed, split, _volume(case), checksums[seed])
            for case, seed, split in zip(cases, seeds, splits, strict=True)
        ),
    )


def captions_of(sentences: Sequence[str]) -> list[str]:
    """Sentences as the released cleaning leaves them (see `brgsa.prompts`)."""
    return clean_sentences(" ".join(sentences))


def case_name(seed: int) -> str:
    """Name of a case and of its files."""
    return f"phantom-{seed:08d}"


def _volume(case: str) -> str:
    return f"volumes/{case}.nii.gz"


def _write_cases(plan: Plan, out: Path, workers: int) -> dict[int, str]:
    """Write all volumes (and masks) and return the sha256 of each volume by seed."""
    seeds = plan.seeds()
    checksums: dict[int, str] = {}
    with (
        resumable(lambda: (len(checksums), len(seeds))),
        tqdm(total=len(seeds), desc="phantoms", unit="case", smoothing=0.05) as bar,
    ):
        if workers == 1:
            with threadpool_limits(1):
                for seed in seeds:
                    checksums[seed] = _write_case(plan, out, seed)
                    bar.update()
            return checksums
        # One thread each, because the products of a phantom are too small to share between threads.
        # A few cases per job, because a coarse one is quicker than handing it over.
        with process_pool(workers, threadpool_limits, (1,)) as pool:
            per_job = 8 if np.prod(plan.grid) < 1_000_000 else 1
            jobs = [pool.submit(_write_chunk, plan, out, chunk) for chunk in _chunks(seeds, per_job)]
            try:
                for job in as_completed(jobs):
                    checksums.update(job.result())
                    bar.update(len(job.result()))
            except BrokenProcessPool as error:
                raise OutOfMemoryError(
                    "a worker process was killed, most likely for lack of memory. "
                    f"Run again with --workers {max(1, workers // 2)}; complete cases are kept."
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return checksums


def _chunks(seeds: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]


def _write_chunk(plan: Plan, out: Path, seeds: list[int]) -> dict[int, str]:
    return {seed: _write_case(plan, out, seed) for seed in seeds}


def _write_case(plan: Plan, out: Path, seed: int) -> str:
    """Write one case unless it is there; the volume comes last, so that a volume means a complete case."""
    case = case_name(seed)
    path = out / _volume(case)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    phantom = make_phantom(seed, Grid(plan.grid), masks=plan.masks)
    for name, mask in (phantom.masks or {}).items():
        write_nifti(out / "masks" / case / f"{name}.nii.gz", mask.astype(np.uint8), phantom.grid)
    return write_nifti(path, phantom.voxels, phantom.grid)


def write_nifti(path: Path, voxels: np.ndarray, grid: Grid) -> str:
    """Write an array with axes growing Left, Posterior, Superior as .nii.gz and return its sha256.

    NIfTI's world is RAS, so the first two rows of the affine change sign; the voxels stay as they are. The same voxels
    always give the same bytes (no time in the gzip header).

    Raises:
        BrgSAError: the file cannot be written.
    """
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine)
    image.set_qform(image.affine, code="scanner")
    image.set_sform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"digital phantom, no patient"
    content = igzip.compress(image.to_bytes(), compresslevel=2, mtime=0)
    with atomic_open(path, "wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()
