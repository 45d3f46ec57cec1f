"""Embed many scans into one folder; scans of earlier runs stay in it.

OUT/embeddings/CASE.npz      image and image_from_bank, (E,) float32, and what they were made of
OUT/manifest.csv             case, path, embedding, precision, flags
OUT/failures.csv             case, path, code, reason
"""

import json
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from brgsa.batch.loop import BatchResult, each_case, write_failures
from brgsa.ct.cases import Case, absolute, with_hash
from brgsa.errors import UsageError
from brgsa.files import atomic_path, csv_dicts, write_csv
from brgsa.files.output_folder import output_folder
from brgsa.scores import flags_of
from brgsa.scoring import Progress, Scorer, silent

EMBEDDINGS = "embeddings"  # kind of output folder
MANIFEST = "manifest.csv"
_COLUMNS = ("case", "path", "embedding", "precision", "flags")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


def embed_cases(
    scorer: Scorer, cases: Sequence[Case], out: str | Path, on_progress: Progress = silent, *, force: bool = False
) -> BatchResult:
    """Write `embeddings/CASE.npz` (image and image_from_bank, float32) for every case, and manifest.csv.

    A case whose file is there, made with these weights from the scan as it is now, is not done again. A case whose name
    another scan has in the folder gets a short hash of its path.

    Args:
        on_progress: called with the fraction of all cases that is done.
        force: embed cases even where the input checks say "error"; they are marked. Otherwise they fail as refused.

    Raises:
        UsageError: the folder holds something else or embeddings of other settings that would stay, or is in use.
        BrgSAError: the folder cannot be written.
    """
    with output_folder(out, EMBEDDINGS):
        out = Path(out)
        cases = [_with_free_name(out, case) for case in cases]
        earlier = _earlier_rows(out, {case.name for case in cases}, _settings(scorer))
        return embed_named(scorer, cases, out, on_progress, force, earlier)


def embed_named(
    scorer: Scorer,
    cases: Sequence[Case],
    out: Path,
    on_progress: Progress,
    force: bool,
    earlier: Sequence[tuple[str, ...]] = (),
) -> BatchResult:
    """Do what `embed_cases` does in a folder that is held, under the names that the cases have.

    Args:
        earlier: rows of the manifest that stay.
    """
    made_with = {case.name: json.dumps([*_settings(scorer), case.series]) for case in cases}
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
        write_csv(out / MANIFEST, _COLUMNS, [*rows, *earlier])
        write_failures(out / "failures.csv", failures, {*(case.name for case in cases), *(row[0] for row in earlier)})
    return BatchResult([], failures, len(done) - len(known), len(known))


def _settings(scorer: Scorer) -> list[str]:
    return [scorer.weights.checksum, scorer.fidelity, scorer.precision]


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
    except _DAMAGE:
        return None


def _with_free_name(out: Path, case: Case) -> Case:
    try:
        with np.load(embedding_path(out, case), allow_pickle=False) as stored:
            there = absolute(Path(str(stored["path"]))), json.loads(str(stored["made_with"]))[-1]
    except (*_DAMAGE, IndexError):
        return case
    return case if there == (absolute(case.path), case.series) else with_hash(case)


def _earlier_rows(out: Path, names: Collection[str], settings: list[str]) -> list[tuple[str, ...]]:
    """Rows of the manifest of other scans than `names`, as far as their embeddings are there.

    Raises:
        UsageError: one was made with other settings (checksum of the weights, fidelity, precision).
    """
    try:
        with (out / MANIFEST).open(encoding="utf-8", newline="") as file:
            rows = [tuple(row[column] for column in _COLUMNS) for row in csv_dicts(file)]
    except (OSError, ValueError, KeyError):
        return []
    kept = []
    for row in rows:
        if row[0] in names:
            continue
        try:
            with np.load(out / row[2], allow_pickle=False) as stored:
                made_with = json.loads(str(stored["made_with"]))[:-1]
        except _DAMAGE:
            continue
        if made_with != settings:
            raise UsageError(
                f"{out} holds embeddings made with other weights or settings ({', '.join(made_with)}, now "
                f"{', '.join(settings)}), for example {row[0]}. Choose another --out folder."
            )
        kept.append(row)
    return kept
