"""Where scores come from: a table that is there, or a model on scans or on cached volumes."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.calibration import PromptSets
from brgsa.errors import RefusedScanError, UsageError
from brgsa.files import write_csv
from brgsa.prompts import prompt_sets

PHANTOMS = 200
PHANTOM_SEED = 900
"""Data set seed of the phantoms that `evaluate --benchmark phantom` makes; no training set uses it."""


@dataclass(frozen=True)
class ScoreInfo:
    """What is known about a score table besides its numbers.

    Attributes:
        style, kind: prompt style and score kind, as `brgsa score` calls them.
        prompts: abnormality -> positive and negative prompts that were scored.
        checksum: of the weights, None where it is not known.
        precision: of the image encoder, None where it is not known.
        notice: what must be said wherever the scores are shown, None where nothing.
    """

    style: str = "single"
    kind: str = "final"
    prompts: Mapping[str, PromptSets] = field(default_factory=dict)
    checksum: str | None = None
    precision: str | None = None
    notice: str | None = None


def score_info(table: Path, abnormalities: AbnormalityList, style: str, kind: str) -> ScoreInfo:
    """Read `run.json` beside a table of `brgsa score`; without one, trust the options and the benchmark's prompts."""
    try:
        run = json.loads((table.parent / "run.json").read_text(encoding="utf-8"))
        settings = run["settings"]
        found = settings["prompts"], settings["score"]
        own = {row.name: prompt_sets(row, found[0]) for row in (Abnormality(**row) for row in run["abnormalities"])}
        checksum, notice, precision = settings["weights_checksum"], run.get("notice"), settings.get("precision")
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return ScoreInfo(style, kind, {row.name: prompt_sets(row, style) for row in abnormalities})
    prompts = {row.name: prompt_sets(row, found[0]) for row in abnormalities}
    return ScoreInfo(*found, prompts | own, checksum, precision, notice)


def score_scans(
    weights: str,
    scans: Sequence[str],
    abnormalities: AbnormalityList,
    out: Path,
    style: str,
    kind: str,
    device: str,
    force: bool = False,
) -> Path:
    """Score scans with `brgsa`'s batch code into `out`; a run that was cut off goes on. Return the score table.

    Cases that fail or are refused are in `out/failures.csv` and appear as missing in the evaluation.

    Raises:
        BrgSAError: nothing could be scored, or the options make no sense.
    """
    from brgsa.batch.score import score_cases
    from brgsa.ct.cases import find_cases
    from brgsa.scoring import Scorer

    cases = find_cases(scans)
    scorer = Scorer.from_pretrained(weights, device=device)
    result = score_cases(scorer, cases, abnormalities, out, prompts=style, kind=kind, force=force)
    if not result.scores:
        result.raise_failures()
    return out / "scores.csv"


def score_cache(
    weights: str,
    cache: Path,
    abnormalities: AbnormalityList,
    out: Path,
    style: str,
    kind: str,
    device: str,
    force: bool = False,
) -> Path:
    """Score the volumes of a cache of `brgsa-training preprocess` into `out`; return the score table.

    Embeddings are kept in `brgsa`'s own cache, so a second run computes only what is new. Cases that the input checks
    refuse are in `out/failures.csv` and appear as missing in the evaluation, unless they are forced.

    Raises:
        RefusedScanError: all of them are refused.
        UsageError: the cache was made for another grid than the weights'.
    """
    from brgsa.batch.loop import FAILURES_COLUMNS
    from brgsa.batch.score import SCORES_COLUMNS
    from brgsa.ct.volume import CTVolume, Source
    from brgsa.files import write_json
    from brgsa.files.output_folder import output_folder, require_output
    from brgsa.scores import flags_of
    from brgsa.scoring import Scorer
    from brgsa_training.data.cache import VolumeCache, volume_path

    require_output(out, "scores of a cache")
    volumes = VolumeCache.open(cache)
    scorer = Scorer.from_pretrained(weights, device=device)
    if volumes.plan != scorer.weights.plan:
        raise UsageError(
            f"{cache}: was made for another grid than that of the weights {scorer.weights.name!r}; preprocess for them"
        )
    # On the model's own grid already: resampling it is the identity.
    affine = np.diag([*volumes.plan.spacing, 1.0])
    rows, failures = [], []
    for case in tqdm(volumes.cases, unit="scan"):
        voxels = volumes.volume(case)
        source = Source(volume_path(volumes.folder, case), "cache", volumes.shape, affine, "int16")
        ct = CTVolume(np.asarray(voxels), volumes.plan.spacing, affine, source)
        try:
            result = scorer.score(ct, abnormalities, prompts=style, kind=kind, case=case, force=force)
        except RefusedScanError as error:
            failures.append((case, str(source.path), error.code, str(error)))
            refused = error
            continue
        for row in result.scores:
            optional = [None if v is None else f"{v:.6f}" for v in (row.probability, row.threshold)]
            positive = None if row.positive is None else int(row.positive)
            values = (f"{row.score:.6f}", *optional, positive)
            rows.append(
                (case, str(source.path), row.name, *values, " ".join(flags_of(result.findings)), scorer.precision)
            )
    with output_folder(out, "scores of a cache"):
        write_csv(out / "failures.csv", FAILURES_COLUMNS, failures)
        if not rows:
            raise refused
        write_csv(out / "scores.csv", SCORES_COLUMNS, rows)
        write_json(
            out / "run.json",
            {
                "settings": scorer.settings(abnormalities, style, kind),
                "abnormalities": [row.to_dict() for row in abnormalities],
                "notice": scorer.weights.notice,
            },
        )
    return out / "scores.csv"


def make_phantoms(out: Path, count: int) -> tuple[Path, Path]:
    """Write the phantoms of the benchmark `phantom`, or find them; return their volumes' folder and their label table.

    Raises:
        UsageError: the folder holds other phantoms, for example another number of them.
    """
    from brgsa_training.phantom.generate import Plan, generate
    from brgsa_training.phantom.grid import parse_grid

    plan = Plan(count, PHANTOM_SEED, parse_grid("coarse").shape, {"test": 1.0}, False)
    generate(plan, out, min(os.cpu_count() or 1, count))
    return out / "volumes", out / "labels.csv"


def weights_folder(name: str) -> tuple[Path, str]:
    """Return the folder and the checksum of weights, by name or path.

    Raises:
        SetupError: the weights are missing or damaged.
    """
    from brgsa.weights.folder import open_weights

    weights = open_weights(name)
    return weights.folder, weights.checksum


def refuse_other_weights(info: ScoreInfo, checksum: str, table: Path) -> None:
    """Refuse scores that other weights made.

    Raises:
        UsageError: `run.json` beside the table names other weights.
    """
    if info.checksum is not None and info.checksum != checksum:
        raise UsageError(f"{table}: these scores were made with other weights; score the set with these weights first")
