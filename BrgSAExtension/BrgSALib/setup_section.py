"""The section "Setup": weights and their licence, packages, interpreter, device, and what this computer has."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from . import packages
from .dialogs import Dialogs
from .session import SHIPPED, Session
from .settings import Settings

TYPING_PAUSE_MS = 1000
_LONG_PATH = 90  # characters; with torch's own folders Windows' limit of 260 is near


class SetupSection:
    """Wires the widgets of the section.

    Args:
        ui: the panel's widgets by name.
        settings: what is remembered.
        session: gives the session; asked for when needed, because opening the panel starts nothing.
        dialogs: questions to the user.
        changed: called when another model, device or Python was chosen.
        log: takes lines for the log.
    """

    def __init__(
        self,
        ui: Any,
        settings: Settings,
        session: Callable[[], Session],
        dialogs: Dialogs,
        changed: Callable[[], None],
        log: Callable[[str], None],
    ):
        self._ui, self._settings, self._session, self._dialogs = ui, settings, session, dialogs
        self._changed, self._log = changed, log
        self._fill_weights()
        for combo, name in ((ui.deviceComboBox, "device"), (ui.precisionComboBox, "precision")):
            if combo.findText(getattr(settings, name)) < 0:  # an earlier version knew it
                setattr(settings, name, combo.itemText(0))
            combo.setCurrentIndex(combo.findText(getattr(settings, name)))
            combo.connect("currentIndexChanged(int)", lambda index, c=combo, n=name: self._remember(n, c.currentText))
        ui.interpreterPathLineEdit.currentPath = settings.interpreter
        # ctkPathLineEdit says currentPathChanged at every character, but not when it is emptied.
        ui.interpreterPathLineEdit.connect("currentPathChanged(QString)", lambda path: self._on_interpreter())
        ui.interpreterPathLineEdit.connect("validInputChanged(bool)", lambda valid: self._on_interpreter())
        self._typing = qt.QTimer()
        self._typing.setSingleShot(True)
        self._typing.setInterval(TYPING_PAUSE_MS)
        self._typing.connect("timeout()", self._use_interpreter)
        ui.weightsComboBox.connect("activated(int)", self._on_weights)
        for button, slot in (
            (ui.chooseWeightsButton, self._choose),
            (ui.importWeightsButton, self._import),
            (ui.licenceButton, self.ask_licence),
            (ui.verifyWeightsButton, self._verify),
            (ui.deleteWeightsButton, self._delete),
            (ui.installButton, self._install),
            (ui.doctorButton, self.examine),
            (ui.clearCacheButton, self._clear_cache),
        ):
            button.connect("clicked(bool)", lambda checked=False, slot=slot: slot())
        self.refresh_packages()

    def refresh_packages(self) -> list[str]:
        """Say which packages are missing; with a Python of the user's own the worker finds out."""
        if self._settings.interpreter:
            self._ui.packagesLabel.text = _("Those of the chosen Python; see Examine.")
            self._ui.installButton.enabled = False
            return []
        missing = packages.missing()
        self._ui.installButton.enabled = bool(missing)
        text = _("Missing: {names}.").format(names=", ".join(missing)) if missing else _("All installed.")
        folder = str(Path(packages.__file__).parent)
        if missing and sys.platform == "win32" and len(folder) > _LONG_PATH:
            text += " " + _("Slicer is in a folder with a long path; if installing fails, move it to a short one.")
        self._ui.packagesLabel.text = text
        return missing

    def install_missing(self) -> str | None:
        """Install packages that are missing, after Slicer has asked; return what went wrong, or None."""
        try:
            packages.install()
        except packages.InstallationError as error:
            self._log(str(error))
            return str(error)
        finally:
            self.refresh_packages()
        return None

    def ask_licence(self) -> None:
        """Show the licence of the chosen weights and remember whether it was accepted."""

        def show(values: dict[str, Any]) -> None:
            checksum, name = values["weights"]["checksum"], values["weights"]["name"]
            before = name == SHIPPED or checksum in self._settings.accepted_licences
            if self._dialogs.accept_licence(name, values["licence"], before):
                self._settings.accept_licence(checksum)
                self._say(_("The licence of {name} is accepted.").format(name=name))
            else:
                self._say(_("The licence of {name} is not accepted; these weights are not used.").format(name=name))
            self._changed()

        self._ask("weights/info", show, weights=self._settings.weights)

    def examine(self) -> None:
        """Ask the worker what this computer has, and show it."""

        def show(values: dict[str, Any]) -> None:
            report = values["doctor"]
            lines = [f"{row['what']:<18} {row['found']}" for row in report["rows"]]
            lines += ["", *(f"- {advice}" for advice in report["advice"])]
            self._ui.doctorTextEdit.setPlainText("\n".join(lines).rstrip())
            self._ui.doctorTextEdit.setVisible(True)
            self._fill_weights()

        self._ask("doctor", show)

    def _fill_weights(self) -> None:
        combo, chosen = self._ui.weightsComboBox, self._settings.weights
        folders = [each for each in self._settings.weights_folders if Path(each).is_dir()]
        if chosen != SHIPPED and chosen not in folders:
            folders.append(chosen)
        combo.clear()
        combo.addItem(_("demonstration (not for patients)"), SHIPPED)
        for folder in folders:
            combo.addItem(Path(folder).name, folder)
            combo.setItemData(combo.count - 1, folder, qt.Qt.ToolTipRole)
        combo.setCurrentIndex(max(0, combo.findData(chosen)))
        self._ui.deleteWeightsButton.enabled = chosen != SHIPPED
        gone = chosen != SHIPPED and not Path(chosen).is_dir()
        self._say(
            _("The folder {folder} is gone. Choose other weights.").format(folder=chosen)
            if gone
            else _("Shipped with BrgSA, trained on digital phantoms.")
            if chosen == SHIPPED
            else chosen
        )

    def _on_weights(self, index: int) -> None:
        self._use(self._ui.weightsComboBox.itemData(index))

    def _use(self, weights: str) -> None:
        if weights != SHIPPED and weights not in self._settings.weights_folders:
            self._settings.weights_folders = (*self._settings.weights_folders, weights)
        self._remember("weights", weights)
        self._fill_weights()
        if weights != SHIPPED:
            self._describe()

    def _describe(self) -> None:
        """Show checksum and size, and ask for the licence where it was not accepted yet."""

        def show(values: dict[str, Any]) -> None:
            info = values["weights"]
            size = f"{info['bytes'] / 1e6:.0f} MB"
            calibrated = _("calibrated") if info["calibrated"] else _("not calibrated")
            self._say(f"{info['folder']}\n{size}, {calibrated}, SHA-256 {info['checksum'][:16]}…")
            if info["checksum"] not in self._settings.accepted_licences:
                self.ask_licence()

        self._ask("weights/info", show, weights=self._settings.weights)

    def _choose(self) -> None:
        if folder := self._dialogs.choose_folder(_("Weights folder")):
            self._use(folder)

    def _import(self) -> None:
        source = self._dialogs.open_file(_("Released checkpoint or bundle"), "Checkpoint or bundle (*.ckpt *.zip)")
        if not source:
            return
        text = ""
        if not source.lower().endswith(".zip"):
            text = self._dialogs.choose_folder(_("Folder of the text encoder (M3AE_CXRBERT)"))
            if not text:
                return
        parent = self._dialogs.choose_folder(_("Folder that the weights folder is made in"))
        if parent:
            out = str(Path(parent) / f"brgsa-{Path(source).stem}")
            self._ask("weights/import", lambda values: self._use(values["folder"]), source=source, text=text, out=out)

    def _verify(self) -> None:
        def show(values: dict[str, Any]) -> None:
            problems = values["problems"]
            whole = _("Every file is whole. SHA-256 {sum}…").format(sum=values["checksum"][:16])
            self._say(_("Damaged: {what}.").format(what="; ".join(problems)) if problems else whole)

        self._ask("weights/verify", show, weights=self._settings.weights)

    def _delete(self) -> None:
        folder = self._settings.weights
        if folder == SHIPPED or not self._dialogs.confirm(_("Delete the weights in {folder}?").format(folder=folder)):
            return

        def deleted(values: dict[str, Any]) -> None:
            kept = [each for each in self._settings.weights_folders if each != folder]
            self._settings.weights_folders = kept
            self._use(SHIPPED)
            self._say(_("Deleted {size} MB.").format(size=round(values["bytes"] / 1e6)))
            if values["left"]:
                left = ", ".join(values["left"][:3])
                self._say(_("{folder} stays: it holds files of yours ({left}).").format(folder=folder, left=left))

        self._ask("weights/delete", deleted, folder=folder)

    def _install(self) -> None:
        if self.install_missing() is None:
            self.examine()  # metadata is not a proof: only a process that imports torch is

    def _clear_cache(self) -> None:
        def cleared(values: dict[str, Any]) -> None:
            self._say(_("{n} embeddings deleted.").format(n=values["removed"]))

        self._ask("cache/clear", cleared)

    def _on_interpreter(self) -> None:
        path = self._ui.interpreterPathLineEdit.currentPath.strip()
        if path == self._settings.interpreter:
            return
        self._remember("interpreter", path)
        self.refresh_packages()
        self._typing.start()

    def _use_interpreter(self) -> None:
        """End the worker when typing has ended and it has nothing to do; the next request starts the other Python."""
        client = self._session().client
        if client.busy:
            self._typing.start()
        else:
            client.close()

    def _remember(self, name: str, value: str) -> None:
        setattr(self._settings, name, value)
        self._changed()

    def _ask(self, name: str, done: Callable[[dict[str, Any]], None], **values: Any) -> None:
        def failed(code: str, message: str, more: dict[str, Any]) -> None:
            self._say(message[:1].upper() + message[1:])

        self._say(_("Working…"))
        self._session().ask(
            name, done, failed, lambda fraction, stage: self._say(f"{stage} ({fraction:.0%})"), **values
        )

    def _say(self, text: str) -> None:
        self._ui.weightsLabel.text = text
