"""One report against the scores of a scan: read by a process of its own, completed by the worker. No widgets.

The process is `brgsa-training check-report SCORES - --json`, so the verdicts are those of the command line. It gets the
report through its standard input and nothing else: the text is in no file, no argument and no log. What the report
names and the scores lack is scored by the worker, without a change to the user's list, and compared in a second run.
"""

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brgsa.abnormalities import AbnormalityList
from brgsa.errors import BrgSAError
from brgsa.files import write_json
from brgsa.worker.protocol import CANCELLED, ERROR_CODES

from .launch import Launch, kill_group, start
from .session import Done, Failed, Options, Progress, Session, Stop

FAILED = ERROR_CODES[1]
NOT_SCORED = "not scored"
LONGEST_SECONDS = 60.0
_PREFIX = "brgsa-training: error: "


@dataclass(frozen=True)
class Scored:
    """A scan with its scores.

    Attributes:
        key: of the scan, as `Session.is_warm` takes it.
        result: its scores, the content of `scores.json`.
        abnormalities: the list behind the result, with its thresholds.
        options: with which the worker scores.
    """

    key: str
    result: Mapping[str, Any]
    abnormalities: AbnormalityList
    options: Options


class ReportCheck:
    """Checks one report at a time. Whoever owns it calls `poll()` every few hundredths of a second.

    Args:
        session: gives the session, whose clock then runs.
        launch: says how to start the reading with some arguments.
        temporary_folder: where the scores are written for it.
    """

    def __init__(
        self,
        session: Callable[[], Session],
        launch: Callable[[Sequence[str]], Launch],
        temporary_folder: Callable[[], str],
    ):
        self._session, self._launch, self._temporary_folder = session, launch, temporary_folder
        self._check: _Check | None = None
        self._answers: queue.Queue[tuple[_Check, int, str, str]] = queue.Queue()

    @property
    def busy(self) -> bool:
        return self._check is not None

    def start(
        self, scored: Scored, report: str, allow_identifiers: bool, done: Done, failed: Failed, progress: Progress
    ) -> Stop:
        """Check a report; `done` gets what `check-report --json` prints. Exactly one of `done` and `failed` is called.

        Returns:
            What cancels the check: `failed` is called with the code "cancelled" at the next `poll`.
        """
        check = self._check = _Check(scored, report, allow_identifiers, done, failed, progress)
        try:
            check.folder = Path(tempfile.mkdtemp(prefix="brgsa-", dir=self._temporary_folder()))
            scored.abnormalities.write(check.folder / "list.json")
            self._read(check, scored.result)
        except (OSError, BrgSAError) as error:
            self._end(check.failed, FAILED, self._disk_message(error), {})
        return lambda: self._cancel(check)

    def poll(self) -> None:
        """Hand out what has happened since the last call."""
        while not self._answers.empty():
            check, code, output, errors = self._answers.get()
            if check is not self._check:
                continue
            if check.cancelled:
                self._end(check.failed, CANCELLED, "cancelled", {})
            elif code != 0:
                self._end(check.failed, FAILED, _reason(code, errors), {})
            else:
                self._on_read(check, json.loads(output))

    def _disk_message(self, error: OSError | BrgSAError) -> str:
        if isinstance(error, BrgSAError) or error.errno is None:  # these say themselves what to do
            return str(error)
        return (
            f"cannot write to {self._temporary_folder()}: {error.strerror}. Free some space or choose another "
            "temporary folder in Edit, Application Settings, Modules."
        )

    def _read(self, check: "_Check", record: Mapping[str, Any]) -> None:
        """Let the process compare the report with a record."""
        check.progress(0.5 if check.complete else 0.0, "reading the report")
        path = check.folder / "scores.json"
        write_json(path, {**record, "path": ""})
        arguments = [str(path), "-", "--json", "--abnormalities", str(check.folder / "list.json")]
        process = start(self._launch([*arguments, *(["--allow-identifiers"] if check.allow_identifiers else [])]))
        check.process = process

        def wait() -> None:
            try:
                output, errors = process.communicate(check.report, LONGEST_SECONDS)
            except (subprocess.TimeoutExpired, OSError, ValueError):
                kill_group(process)
                output, errors = "", ""
            self._answers.put((check, process.returncode or int(not output), output, errors))

        threading.Thread(target=wait, daemon=True).start()

    def _on_read(self, check: "_Check", answer: dict[str, Any]) -> None:
        lacking = [row["name"] for row in answer["abnormalities"] if row["verdict"] == NOT_SCORED]
        scored = check.scored
        if check.complete or not lacking or not self._session().is_warm(scored.key, scored.options):
            self._end(check.done, answer)
            return

        def on_scores(values: Mapping[str, Any]) -> None:
            if check is not self._check:
                return
            if check.cancelled:
                self._end(check.failed, CANCELLED, "cancelled", {})
                return
            check.complete = True
            try:
                self._read(check, {**scored.result, "scores": [*scored.result["scores"], *values["scores"]["scores"]]})
            except (OSError, BrgSAError) as error:
                self._end(check.failed, FAILED, self._disk_message(error), {})

        def on_failure(code: str, message: str, more: Mapping[str, Any]) -> None:
            if check is self._check:  # the worker may have turned to another scan; what there is still counts
                self._end(*((check.failed, code, message, {}) if check.cancelled else (check.done, answer)))

        check.progress(0.3, "scoring what the report names besides")
        check.stop_worker = self._session().start(
            "rescore",
            on_scores,
            on_failure,
            lambda fraction, stage: None,
            scan=scored.key,
            list="named by the report",
            abnormalities=[{"name": name} for name in lacking],
            prompts=scored.options.prompts,
            kind=scored.options.kind,
        )

    def _cancel(self, check: "_Check") -> None:
        if check is not self._check or check.cancelled:
            return
        check.cancelled = True
        if check.stop_worker and not check.complete:
            check.stop_worker()
        if check.process and check.process.poll() is None:
            kill_group(check.process)

    def _end(self, callback: Callable[..., None], *args: Any) -> None:
        check, self._check = self._check, None
        if check.folder:
            shutil.rmtree(check.folder, ignore_errors=True)
        callback(*args)


@dataclass(eq=False)
class _Check:
    scored: Scored
    report: str
    allow_identifiers: bool
    done: Done
    failed: Failed
    progress: Progress
    folder: Path | None = None
    process: subprocess.Popen | None = None
    stop_worker: Stop | None = None
    complete: bool = False  # whether the worker has scored what the report names besides
    cancelled: bool = False


def _reason(code: int, errors: str) -> str:
    """The one line that the command ends with; without one, what to do."""
    lines = [line for line in errors.splitlines() if line.startswith(_PREFIX)]
    if not lines:
        return f"The report could not be read (the process ended with code {code}). Check the Python under Setup."
    return lines[-1].removeprefix(_PREFIX)
