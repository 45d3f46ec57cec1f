"""`brgsa-training preprocess`: put the scans of a data set into a cache."""

import argparse
import os
from pathlib import Path

FIDELITY_HELP = "exact (floating point, air beyond the border) or reference (the released steps bit for bit)"


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "preprocess",
        help="put scans on the model's grid, in a cache for training and evaluation",
        description="Read scans, resample them to the model's grid and keep them as memory-mapped int16 volumes. "
        "A run that was stopped goes on where it was; scans that cannot be read are listed in failures.csv.",
    )
    sources = parser.add_subparsers(title="data sets", metavar="DATA", required=True)

    ct_rate = sources.add_parser("ct-rate", help="CT-RATE: a metadata table and the folder that holds train_1, ...")
    ct_rate.add_argument("root", type=Path, metavar="FOLDER")
    ct_rate.add_argument("--metadata", type=Path, required=True, metavar="CSV", help="train_metadata.csv or the like")
    ct_rate.set_defaults(list_scans=_ct_rate)

    rad_chestct = sources.add_parser("rad-chestct", help="RAD-ChestCT: a folder of .npz files")
    rad_chestct.add_argument("root", type=Path, metavar="FOLDER")
    rad_chestct.set_defaults(list_scans=_rad_chestct)

    folder = sources.add_parser("folder", help="any NIfTI, NRRD, MetaImage or DICOM scans, or a CSV of paths")
    folder.add_argument("inputs", type=Path, nargs="+", metavar="INPUT")
    folder.add_argument("--studies", type=Path, metavar="CSV", help="columns case, study and optionally patient")
    folder.set_defaults(list_scans=_folder)

    for source in (ct_rate, rad_chestct, folder):
        source.add_argument("--out", type=Path, required=True, metavar="CACHE")
        source.add_argument("--fidelity", choices=("exact", "reference"), default="exact", help=FIDELITY_HELP)
        source.add_argument(
            "--plan", type=Path, metavar="WEIGHTS|JSON", help="weights folder, or its preprocessor_config.json"
        )
        source.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
        source.add_argument("--ray", action="store_true", help="spread the work over a Ray cluster")
        source.set_defaults(run=run)

    verify = sources.add_parser("verify", help="compare every volume of a cache with its checksum")
    verify.add_argument("cache", type=Path, metavar="CACHE")
    verify.set_defaults(run=run_verify)


def run(arguments: argparse.Namespace) -> None:
    from brgsa.errors import CasesFailedError, UsageError
    from brgsa.preprocess import PreprocessingPlan

    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers} is not possible: use 1 or more.")
    plan = PreprocessingPlan()
    if arguments.plan:
        inside = arguments.plan / "preprocessor_config.json"
        plan = PreprocessingPlan.load(inside if arguments.plan.is_dir() else arguments.plan)
    scans = arguments.list_scans(arguments)
    if arguments.ray:
        from brgsa_training.cluster.preprocess import preprocess_on_ray

        result = preprocess_on_ray(scans, arguments.out, plan, arguments.fidelity)
    else:
        from brgsa_training.data.preprocess import preprocess

        result = preprocess(scans, arguments.out, plan, arguments.fidelity, arguments.workers)
    print(f"{result.done} scans preprocessed, {result.known} were done before, {len(result.failures)} failed")
    print(f"cache: {arguments.out}")
    if result.failures:
        first = result.failures[0]
        raise CasesFailedError(
            f"{len(result.failures)} of {len(scans)} scans failed, see {arguments.out / 'failures.csv'}. "
            f"The first: {first.case}: {first.reason}"
        )


def run_verify(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from brgsa.errors import InputError
    from brgsa_training.data.cache import VolumeCache

    cache = VolumeCache.open(arguments.cache)
    checked = tqdm(cache.damaged(), desc="verify", unit="volume", total=len(cache.cases), disable=None)
    bad = [(case, problem) for case, problem in checked if problem]
    for case, problem in bad:
        print(f"{case} {problem}")
    if bad:
        raise InputError(
            f"{len(bad)} of {len(cache.cases)} volumes of {arguments.cache} are damaged; delete them from volumes/ "
            "and run preprocess again."
        )
    print(f"{len(cache.cases)} volumes are whole")


def _ct_rate(arguments: argparse.Namespace) -> list:
    from brgsa_training.data.ct_rate import list_ct_rate

    return list_ct_rate(arguments.metadata, arguments.root)


def _rad_chestct(arguments: argparse.Namespace) -> list:
    from brgsa_training.data.rad_chestct import list_rad_chestct

    return list_rad_chestct(arguments.root)


def _folder(arguments: argparse.Namespace) -> list:
    from brgsa_training.data.folder import list_folder

    return list_folder(arguments.inputs, arguments.studies)
