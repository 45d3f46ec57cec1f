"""Making and extending the index that `brgsa.batch.search` searches.

Scans are embedded into INDEX/unfinished first, one file each, so that a run that was cut off goes on where it stopped;
at the end they and the rows of the old data folder are written into a new one, and index.json is replaced by one that
names it.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

import brgsa
from brgsa.batch.embed import EMBEDDINGS, MANIFEST, embed_named, embedding_path
from brgsa.batch.loop import FAILURES_COLUMNS, BatchResult
from brgsa.batch.search import COLUMNS, INDEX, KINDS, ROWS_AT_A_TIME, SCANS, VERSION, ScanIndex
from brgsa.ct.cases import Case, absolute, with_hash
from brgsa.errors import FORCED, BrgSAError, UsageError
from brgsa.files import atomic_folder, write_csv, write_json
from brgsa.files.output_folder import OWN_FILES, OutputFolder, output_folder, remove_files
from brgsa.scoring import Progress, Scorer, silent
from brgsa.weights.folder import registry

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class IndexResult:
    """What a run did.

    Attributes:
        scans: number of scans in the index now.
        added, changed, unchanged: of the given scans: new ones, ones whose file changed, ones that were not done again.
        moved: old paths of scans that were found at a new one.
        vanished: scans of the index that are no longer where they were.
        failures: of the given scans.
    """

    scans: int
    added: int
    changed: int
    unchanged: int
    moved: tuple[Path, ...]
    vanished: tuple[Case, ...]
    batch: BatchResult


def index_cases(
    scorer: Scorer,
    cases: Sequence[Case],
    folder: str | os.PathLike,
    *,
    remove_vanished: bool = False,
    force: bool = False,
    on_progress: Progress = silent,
) -> IndexResult:
    """Bring an index up to date with these cases; scans of earlier runs stay in it.

    A scan is embedded again only when its file changed. A new scan with the very vector of one that vanished takes its
    place. A scan that changed and cannot be read any more leaves the index.

    Args:
        folder: the index; made where there is none.
        remove_vanished: take scans out that are no longer where they were.
        force: embed scans even where the input checks say "error"; the index marks them. Otherwise they are refused.
        on_progress: what it raises ends the run; what was embedded so far is kept for the next one.

    Raises:
        UsageError: the index was made with other weights or settings.
        InputError: the index is damaged.
        BrgSAError: the folder cannot be written.
        KeyboardInterrupt: what was embedded so far is kept for the next run.
    """
    with output_folder(folder, "index") as held:
        return _index_cases(scorer, cases, held, remove_vanished, force, on_progress)


def _index_cases(
    scorer: Scorer,
    cases: Sequence[Case],
    held: OutputFolder,
    remove_vanished: bool,
    force: bool,
    on_progress: Progress,
) -> IndexResult:
    folder = held.path
    old = ScanIndex.open(folder) if (folder / INDEX).exists() else None
    if old:
        _require_same_settings(old, scorer)
    known = {(path, series or None): row for row, (_, path, series, _) in enumerate(old.scans)} if old else {}
    cases = [replace(case, path=absolute(case.path)) for case in cases]
    present = {_key(case) for case in cases if case.state()}
    same = {
        _key(case)
        for case in cases
        if _key(case) in known and _key(case) in present and not case.has_changed_since(old.scans[known[_key(case)]][3])
    }
    todo = _with_new_names([case for case in cases if _key(case) not in same], old, known)

    with output_folder(folder / UNFINISHED, EMBEDDINGS) as unfinished:
        batch = embed_named(scorer, todo, unfinished.path, on_progress, force)
    failed = {failure.case for failure in batch.failures}
    new = [case for case in todo if case.name not in failed]
    batch = BatchResult([], batch.failures, batch.done, batch.resumed + len(same))
    write_csv(folder / "failures.csv", FAILURES_COLUMNS, (vars(failure).values() for failure in batch.failures))

    old_keys = list(known)
    kept = [row for row, key in enumerate(old_keys) if key in same or key not in present]
    gone = [row for row in kept if old_keys[row] not in same and not old.case(row).path.exists()]
    moved = _moved(old, gone, folder / UNFINISHED, new) if gone and new else []
    vanished = [row for row in gone if row not in set(moved)]
    dropped = {*moved, *(vanished if remove_vanished else ())}
    kept = [row for row in kept if row not in dropped]

    result = IndexResult(
        scans=len(kept) + len(new),
        added=sum(_key(case) not in known for case in new),
        changed=sum(_key(case) in known for case in new),
        unchanged=len(same),
        moved=tuple(old.case(row).path for row in moved),
        vanished=tuple(old.case(row) for row in vanished),
        batch=batch,
    )
    if result.scans and (new or old is None or len(kept) < len(old)):
        _write(held, scorer, old, kept, new)
    elif not result.scans and old:
        raise UsageError(f"{folder}: no scan would be left in the index. Delete the folder instead.")
    unchanged = [old.case(known[key]) for key in same]  # a run that was killed at this point left theirs
    _remove_unfinished(folder / UNFINISHED, [*new, *unchanged])
    return result


def _remove_unfinished(folder: Path, done: Sequence[Case]) -> None:
    """Remove the embeddings that are in the index now; those of a run that was cut off wait for its scans."""
    there = {path.relative_to(folder).as_posix() for path in (folder / "embeddings").glob("*.npz")}
    in_index = {embedding_path(Path(), case).as_posix() for case in done}
    remove_files(folder, there & in_index)
    if there <= in_index:
        remove_files(folder, [MANIFEST, "failures.csv", *OWN_FILES])
        with contextlib.suppress(OSError):  # somebody put a file there
            folder.rmdir()


def write_index(
    held: OutputFolder,
    about: dict,
    scans: Sequence[tuple[str, str, str, str]],
    rows: Iterable[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write a new data folder and make it the index's.

    Args:
        about: for index.json; `version`, `data` and `scans` are added.
        scans: as `ScanIndex.scans`.
        rows: parts of the two matrices, direct and final, each (n, E) float32, in the order of the scans.
    """
    folder = held.path
    numbers = [int(path.name[5:]) for path in folder.glob("data-*") if re.fullmatch(r"data-\d+", path.name)]
    data = folder / f"data-{max(numbers, default=0) + 1:05d}"
    names = {f"{data.name}/{name}" for name in (SCANS, *(f"{kind}.npy" for kind in KINDS))}
    earlier = held.made() - names  # a run that was killed may have announced the same names
    held.will_make(names)
    shape = (len(scans), about["embedding_size"])
    with atomic_folder(data) as temporary, contextlib.ExitStack() as stack:
        write_csv(temporary / SCANS, COLUMNS, scans)
        files = [stack.enter_context(_matrix_file(temporary / f"{kind}.npy", shape)) for kind in KINDS]
        for parts in rows:
            for file, part in zip(files, parts, strict=True):
                file.write(np.ascontiguousarray(part, "<f4"))
    write_json(folder / INDEX, {"version": VERSION, **about, "data": data.name, "scans": len(scans)})
    with contextlib.suppress(BrgSAError):  # Windows keeps files that are mapped; they stay on the list
        held.remove(earlier)


@contextlib.contextmanager
def _matrix_file(path: Path, shape: tuple[int, int]) -> Iterator[IO[bytes]]:
    """Open an .npy file to which float32 rows are written one after the other.

    A matrix that is mapped into memory for writing would kill the process on a full disk; a file says so.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        yield file


def _write(
    held: OutputFolder,
    scorer: Scorer,
    old: ScanIndex | None,
    kept: Sequence[int],
    new: Sequence[Case],
) -> None:
    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(kept), ROWS_AT_A_TIME):
            part = list(kept[start : start + ROWS_AT_A_TIME])
            yield old.matrices["direct"][part], old.matrices["final"][part]
        for case in tqdm(new, unit="scan", desc="writing the index", disable=None, leave=False):
            direct, final = _vectors(unfinished, case)
            yield direct[None], final[None]

    weights, unfinished = scorer.weights, held.path / UNFINISHED
    forced = {old.case(row).name for row in kept} & old.forced if old else set()
    forced |= {case.name for case in new if _is_forced(unfinished, case)}
    about = {
        "brgsa": brgsa.__version__,
        "weights": weights.name if weights.name in registry() else str(weights.folder.absolute()),
        "weights_checksum": weights.checksum,
        "fidelity": scorer.fidelity,
        "precision": scorer.precision,
        "embedding_size": scorer.model.config.embedding_size,
        "forced": sorted(forced),
    }
    scans = [old.scans[row] for row in kept]
    scans += [(case.name, str(case.path), case.series or "", _fingerprint(unfinished, case)) for case in new]
    write_index(held, about, scans, rows())


def _vectors(unfinished: Path, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """u and (u + u_hat) / 2 of an embedded case, float32."""
    with np.load(embedding_path(unfinished, case), allow_pickle=False) as stored:
        direct, bank = (_unit(stored[name]) for name in ("image", "image_from_bank"))
    return direct.astype(np.float32), ((direct + bank) / 2).astype(np.float32)


def _fingerprint(unfinished: Path, case: Case) -> str:
    with np.load(embedding_path(unfinished, case), allow_pickle=False) as stored:
        return str(stored["fingerprint"])


def _is_forced(unfinished: Path, case: Case) -> bool:
    """Whether the scan was embedded although the input checks refuse it."""
    with np.load(embedding_path(unfinished, case), allow_pickle=False) as stored:
        return FORCED in str(stored["flags"]).split()


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = vector.astype(np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _moved(old: ScanIndex, gone: Sequence[int], unfinished: Path, new: Sequence[Case]) -> list[int]:
    """Rows of vanished scans that are among the new ones, bit by bit."""

    def digest(vector: np.ndarray) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(vector, "<f4"), digest_size=16).digest()

    found = {digest(_vectors(unfinished, case)[0]) for case in new}
    return [row for row in gone if digest(old.matrices["direct"][row]) in found]


def _key(case: Case) -> tuple[str, str | None]:
    return str(case.path), case.series


def _with_new_names(cases: Sequence[Case], old: ScanIndex | None, known: dict) -> list[Case]:
    """Keep the names of scans that are in the index; others that would repeat one get a short hash of their path."""
    taken = {name.casefold() for name, *_ in old.scans} if old else set()
    named = []
    for case in cases:
        if _key(case) in known:
            case = replace(case, name=old.case(known[_key(case)]).name)
        elif case.name.casefold() in taken:
            case = with_hash(case)
        named.append(case)
    return named


def _require_same_settings(index: ScanIndex, scorer: Scorer) -> None:
    try:
        index.require_weights(scorer.weights.checksum, scorer.weights.name)
    except BrgSAError as error:
        raise UsageError(str(error)) from error
    for option in ("fidelity", "precision"):
        made_with, now = index.about.get(option), getattr(scorer, option)
        if made_with != now:
            raise UsageError(
                f"{index.folder} was made with {option} {made_with}, this run would use {now}. "
                f"Add --{option} {made_with}, or make another index."
            )
