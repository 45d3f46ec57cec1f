"""The export of the results: CSV and JSON are written here, the HTML page and DICOM SR by the worker."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from brgsa.errors import BrgSAError
from brgsa.worker.protocol import NO_SCAN

from . import exports, packages
from .dialogs import Dialogs
from .request_button import RequestButton
from .scan_source import dicom_files, dicom_problem
from .session import Done, Failed, Progress, Stop
from .worker_client import ENDED


class ExportSection:
    """Wires the buttons.

    Args:
        ui: the panel's widgets by name.
        logic: a `BrgSALogic`.
        dialogs: questions to the user.
        result: gives the result that is shown, or None.
        volume: gives the scan of that result, or None.
        say: shows a sentence.
        log: takes lines for the log.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        dialogs: Dialogs,
        result: Callable[[], Mapping[str, Any] | None],
        volume: Callable[[], Any],
        say: Callable[[str], None],
        log: Callable[[str], None],
    ):
        self._ui, self._logic, self._dialogs = ui, logic, dialogs
        self._result, self._volume, self._say, self._log = result, volume, say, log
        ui.exportCsvButton.connect("clicked(bool)", lambda checked=False: self._write("csv", _("CSV")))
        ui.exportJsonButton.connect("clicked(bool)", lambda checked=False: self._write("json", _("JSON")))
        self._html = RequestButton(ui.exportHtmlButton, self._write_html, say)
        self._sr = RequestButton(ui.exportSrButton, self._write_sr, say)

    def refresh(self) -> None:
        """Switch the buttons on and off, and say why."""
        has_result = self._result() is not None
        for button in (self._ui.exportCsvButton, self._ui.exportJsonButton):
            button.enabled = has_result
        missing = None if has_result else _("Score a scan first.")
        volume = self._volume() if has_result else None
        if has_result and volume is None:
            missing = _("The scan of these scores is not in the scene any more.")
        page = _(
            "Write one page with scores, slices and heat maps; those made already, or of the three highest scores."
        )
        self._html.enable(missing is None, missing or page)
        report = _(
            "Write a DICOM Structured Report into the patient's study. It carries the patient's name and number, as "
            "the series has them."
        )
        problem = missing or dicom_problem(volume)
        self._sr.enable(problem is None, problem or report)

    def _write(self, suffix: str, kind: str) -> None:
        path = self._ask_path(suffix, kind)
        if not path:
            return
        try:
            exports.write(path, self._result())
            self._say(_("Written to {path}.").format(path=path))
        except BrgSAError as error:
            self._say(str(error))

    def _write_html(self) -> None:
        if path := self._ask_path("html", _("HTML page")):
            self._request(self._html, kind="html", path=path)

    def _write_sr(self) -> None:
        try:
            files = dicom_files(self._volume())
            # a Python of the user's own says itself what it lacks
            if not self._logic.settings.interpreter and not packages.is_met(packages.HIGHDICOM):
                packages.install_these([packages.HIGHDICOM])
                self._log(_("Installed: {names}.").format(names=packages.HIGHDICOM))
        except (ValueError, packages.InstallationError) as error:
            self._say(str(error))
            return
        if path := self._ask_path("dcm", _("DICOM SR")):
            self._request(self._sr, kind="sr", path=path, files=files)

    def _request(self, button: RequestButton, **values: Any) -> None:
        volume = self._volume()

        def send(done: Done, failed: Failed, progress: Progress) -> Stop:
            return self._logic.report(volume, done, failed, progress, **values)

        def written(answer: Mapping[str, Any]) -> None:
            self._say(_("Written to {path}.").format(path=answer["path"]))
            self.refresh()

        def failed(code: str, message: str, more: Any) -> None:
            again = _("Score the scan again to write this report.")
            self._say(again if code in (NO_SCAN, ENDED) else message)
            self._log(message)
            self.refresh()

        button.run(send, written, failed)
        self.refresh()

    def _ask_path(self, suffix: str, kind: str) -> str:
        suggestion = f"{self._result()['case']}.{suffix}"
        path = self._dialogs.save_file(_("Export scores"), suggestion, f"{kind} (*.{suffix})")
        return path if not path or Path(path).suffix.lower() == f".{suffix}" else f"{path}.{suffix}"
