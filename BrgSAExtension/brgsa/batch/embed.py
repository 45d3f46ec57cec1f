"""Embed many scans into one folder.

OUT/embeddings/CASE.npz      image and image_from_bank, (E,) float32, and what they were made of
OUT/manifest.csv             case, path, embedding, precision, flags
OUT/failures.csv             case, path, code, reason
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brgsa.batch.loop import BatchResult, each_case, write_failures
from brgsa.ct.cases import Case
from brgsa.files import atomic_path, write_csv
from brgsa.files.output_folder import output_folder
from brgsa.scores import flags_of
from brgsa.scoring import Progress, Scorer, silent

EMBEDDINGS = "embeddings"  # kind of output folder


def embed_cases(
    scorer: Scorer, cases: Sequence[Case], out: str | Path, on_progress: Progress = silent, *, force: bool = False
) -> BatchResult:
    """Write `embeddings/CASE.npz` (image and image_from_bank, float32) for every case, and manifest.csv.

    A case whose file is there, made with these weights from the scan as it is now, is not done again.

    Args:
        on_progress: called with the fraction of all cases that is done.
        force: embed cases even where the input checks say "error"; they are marked. Otherwise they fail as refused.

    Raises:
        UsageError: the folder holds something else, or another run works in it.
        BrgSAError: the folder cannot be written.
    """
    with output_folder(out, EMBEDDINGS):
        return _embed_cases(scorer, cases, Path(out), on_progress, force)


def _embed_cases(scorer: Scorer, cases: Sequence[Case], out: Path, on_progress: Progress, force: bool) -> BatchResult:
    made_with = {
        case.name: json.dumps([scorer.weights.checksum, scorer.fidelity, scorer.precision, case.series])
        for case in cases
    }
    found = {case.name: _flags_of_embedded(out, case, made_with[case.name]) for case in cases}
    known = {name: flags for name, flags in found.items() if flags is not None}
    done, failures = dict(known), []

    def embed(case: Case, on_case_progress: Progress) -> None:
        def both(fraction: float, stage: str) -> None:
            on_case_progress(fraction, stage)
            finished = len(done) + len(failures)
            on_progress((finished + fraction) / len(cases), f"scan {finished + 1} of {len(cases)}: {stage}")

        fingerprint = case.fingerprint()
        embedding = scorer.embed(case.path, case=case.name, series=case.series, force=force, on_progress=both)
        flags = " ".join(flags_of(embedding.findings))
        with atomic_path(embedding_path(out, case)) as temporary:
            np.savez(
                temporary,
                image=embedding.image,
                image_from_bank=embedding.image_from_bank,
                made_with=np.array(made_with[case.name]),
                fingerprint=np.array(fingerprint),
                path=np.array(str(case.path.absolute())),
                flags=np.array(flags),
            )
        done[case.name] = flags

    try:
        each_case(cases, known, embed, failures, lambda case: case.name in done)
    finally:
        rows = [
            (
                case.name,
                str(case.path),
                embedding_path(out, case).relative_to(out).as_posix(),
                scorer.precision,
                done[case.name],
            )
            for case in cases
            if case.name in done
        ]
        write_csv(out / "manifest.csv", ("case", "path", "embedding", "precision", "flags"), rows)
        write_failures(out / "failures.csv", failures, {case.name for case in cases})
    return BatchResult([], failures, len(done) - len(known), len(known))


def embedding_path(out: Path, case: Case) -> Path:
    """Where `embed_cases` writes the embedding of a case."""
    return out / "embeddings" / f"{case.name}.npz"


def _flags_of_embedded(out: Path, case: Case, made_with: str) -> str | None:
    """The flags of an embedding that an earlier run made in this way of this scan; None where there is none."""
    try:
        with np.load(embedding_path(out, case), allow_pickle=False) as stored:
            same = (
                str(stored["made_with"]) == made_with
                and str(stored["path"]) == str(case.path.absolute())
                and all(np.isfinite(stored[name]).all() for name in ("image", "image_from_bank"))
                and not case.has_changed_since(str(stored["fingerprint"]))
            )
            return str(stored["flags"]) if same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
