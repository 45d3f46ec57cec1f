"""The Python packages that scoring needs in Slicer's own Python.

Installed packages are looked up by their metadata: importing torch into Slicer would block the window and lock its
files. Nothing is installed unless the user asked for it.
"""

import importlib.metadata
import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
TORCH = "torch>=2.4"
HIGHDICOM = "highdicom>=0.23"  # only for DICOM SR; Slicer brings it from 5.12 on
# Slicer brings these along and its own modules need them as they are.
KEEP = ("numpy", "scipy", "SimpleITK", "pydicom", "requests")


class InstallationError(RuntimeError):
    """Packages were not installed; the message says why."""


def requirements() -> list[str]:
    """The lines of requirements.txt that name a package."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def missing() -> list[str]:
    """Requirements that are not met, torch first."""
    return [each for each in (TORCH, *requirements()) if not is_met(each)]


def install() -> None:
    """Install what is missing; Slicer asks the user first.

    Raises:
        InstallationError: the user declined, or it failed.
    """
    wanted = missing()
    if TORCH in wanted:
        _install_torch()
    if rest := [each for each in wanted if each != TORCH]:
        install_these(rest)


def install_these(wanted: list[str]) -> None:
    """Install some packages; Slicer asks the user first.

    Raises:
        InstallationError: the user declined, or it failed.
    """
    try:
        _install(wanted)
    except Exception as error:
        # A declined question is a RuntimeError, a failed pip a CalledProcessError.
        raise InstallationError(
            _("The packages were not installed ({reason}). The log of Slicer has the details.").format(reason=error)
        ) from error
    if still := [each for each in wanted if not is_met(each)]:
        raise InstallationError(_("Still missing: {names}.").format(names=", ".join(still)))


def _install(wanted: list[str]) -> None:
    try:
        from slicer import packaging
    except ImportError:  # Slicer 5.10
        question = _("BrgSA needs these Python packages:\n\n{names}\n\nInstall them now?")
        if not slicer.util.confirmOkCancelDisplay(question.format(names="\n".join(wanted))):
            raise RuntimeError(_("declined")) from None
        slicer.util.pip_install(wanted)
        return
    with tempfile.TemporaryDirectory(prefix="brgsa-") as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in _kept()), encoding="utf-8")
        listed = Path(folder) / "requirements.txt"
        listed.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
        parsed = packaging.load_requirements(str(listed))
        packaging.pip_ensure(parsed, constraints=str(constraints), requester="BrgSA")


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ImportError:
        raise InstallationError(
            _("PyTorch is missing. Install the extension PyTorch in the Extensions Manager, restart Slicer, try again.")
        ) from None
    logic = PyTorchUtils.PyTorchUtilsLogic()
    try:
        installed = logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH.removeprefix("torch"))
    except TypeError:  # keywords of the extension change between its versions
        installed = logic.installTorch(askConfirmation=True)
    except Exception as error:
        raise InstallationError(_("PyTorch was not installed ({reason}).").format(reason=error)) from error
    if installed is None:
        raise InstallationError(_("PyTorch was not installed (declined)."))


def is_met(requirement: str) -> bool:
    """Whether a package is installed in the version that is wanted."""
    try:
        from slicer import packaging
    except ImportError:  # Slicer 5.10
        from packaging.requirements import Requirement

        wanted = Requirement(requirement)
        try:
            return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            return False
    return bool(packaging.pip_check(requirement))


def _kept() -> list[str]:
    found = []
    for name in KEEP:
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
