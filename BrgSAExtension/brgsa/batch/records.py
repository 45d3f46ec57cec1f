"""The records of a folder of scores, `OUT/cases/CASE/scores.json`: what is done, with what, and of which scan."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from brgsa.ct.cases import Case, absolute, with_hash
from brgsa.errors import FORCED, UsageError
from brgsa.files.output_folder import remove_files


def record_path(out: Path, case: Case) -> Path:
    return out / "cases" / case.name / "scores.json"


def read_records(out: Path) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """The records of earlier runs, by case name, and those that are damaged, which count as not done."""
    records, damaged = {}, []
    for path in sorted(out.glob("cases/*/scores.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            scan = record["scan"]
            record["settings_digest"] + "", Path(scan["path"]), scan["series"], scan["fingerprint"]
            score_rows(record), has_error(record["findings"]), FORCED in record["flags"], {**record["settings"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            damaged.append(path)
        else:
            records[path.parent.name] = record
    return records, damaged


def with_free_names(cases: Sequence[Case], there: Mapping[str, dict]) -> list[Case]:
    """Cases whose name another scan has in the folder get a short hash of their path."""
    return [case if _is_of(there.get(case.name), case) else with_hash(case) for case in cases]


def _is_of(record: dict | None, case: Case) -> bool:
    """Whether a record is one of this case, if there is a record."""
    if record is None:
        return True
    return (Path(record["scan"]["path"]), record["scan"]["series"]) == (absolute(case.path), case.series)


def require_same_settings(
    out: Path, there: Mapping[str, dict], settings: dict[str, Any], digest: str, replaced: Collection[str]
) -> None:
    """Refuse to mix scores of different settings in one table.

    Args:
        replaced: names of cases that are scored again, whatever they were scored with.

    Raises:
        UsageError: with what differs.
    """
    other = [name for name, record in there.items() if record["settings_digest"] != digest and name not in replaced]
    if not other:
        return
    made = there[other[0]]["settings"]
    ignored = ("device",)  # no part of the digest
    differing = [key for key in settings if key not in ignored and made.get(key) != settings[key]]
    what = ", ".join(f"{key} {made.get(key)}, now {settings[key]}" for key in differing)
    what = what or f"other prompts or thresholds in the list {settings['abnormalities']}"
    more = " --overwrite replaces the scores of the scans that are given." if not replaced else ""
    raise UsageError(
        f"{out} holds {len(other)} cases scored with other settings ({what}), for example {other[0]}. "
        f"Choose another --out folder.{more}"
    )


def unchanged(there: Mapping[str, dict], cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The records of those cases whose scan did not change since."""
    found = {case.name: there[case.name] for case in cases if case.name in there}
    return {
        case.name: found[case.name]
        for case in cases
        if case.name in found and not case.has_changed_since(found[case.name]["scan"]["fingerprint"])
    }


def has_error(findings: Sequence[dict[str, str]]) -> bool:
    return any(finding["severity"] == "error" for finding in findings)


def remove_records(out: Path, cases: Sequence[Case]) -> None:
    """Remove the records of these cases and the files they name: a run that is cut off leaves nothing out of date."""
    for case in cases:
        path = record_path(out, case)
        try:
            files = [Path(row["path"]).name for row in json.loads(path.read_bytes())["files"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            files = []
        remove_files(path.parent, [*files, path.name])


def score_rows(record: dict[str, Any]) -> list[tuple]:
    """The rows of scores.csv of one case.

    Raises:
        KeyError, TypeError, ValueError: it is not a record, or has a number that is not finite.
    """
    return [
        (
            record["case"],
            record["path"],
            row["name"],
            _decimal(row["score"]),
            "" if row["probability"] is None else _decimal(row["probability"]),
            "" if row["threshold"] is None else _decimal(row["threshold"]),
            "" if row["positive"] is None else int(row["positive"]),
            " ".join(record["flags"]),
            record["settings"]["precision"],
        )
        for row in record["scores"]
    ]


def _decimal(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return f"{number:.6f}"
