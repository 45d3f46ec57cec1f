"""What is written for a case beside its scores: heat maps and reports, as the command line asks for them."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.errors import UsageError

if TYPE_CHECKING:
    from brgsa.scoring import PreparedScan, Progress, ScanScores, Scorer

REPORTS = {"html": "report.html", "sr": "report.dcm"}
METHODS = ("rollout", "similarity")
FORMATS = ("nifti", "dicom")  # of heat maps
ALL_POSITIVE, TOP = "all-positive", "top:"
MAPS_IN_REPORT = 3  # where no heat maps were asked for
MOST_MAPS_IN_REPORT = 5  # a page stays below 3 MB


@dataclass(frozen=True)
class CaseFiles:
    """The request. Without anything asked for it is false.

    Args:
        heatmaps: names of abnormalities, or one of "all-positive" and "top:N".
        method: "rollout" or "similarity".
        reports: "html", "sr".
        formats: of the heat maps, "nifti", "dicom".
    """

    heatmaps: tuple[str, ...] = ()
    method: str = "rollout"
    reports: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("nifti",)

    @classmethod
    def parse(
        cls,
        heatmaps: Sequence[str],
        method: str,
        reports: str,
        abnormalities: AbnormalityList,
        formats: str = "nifti",
    ) -> "CaseFiles":
        """Read the options of `brgsa score`.

        Raises:
            UsageError: an abnormality is not in the list, or an unknown kind of report or format.
        """
        kinds = _words(reports, "--report", REPORTS)
        written = _words(formats, "--heatmap-format", FORMATS)
        if not written or (written != FORMATS[:1] and not heatmaps):
            raise UsageError("--heatmap-format goes with --heatmap and is nifti, dicom or nifti,dicom.")
        known = {name.casefold(): name for name in abnormalities.names}
        chosen = []
        for text in heatmaps:
            if text == ALL_POSITIVE or _is_top(text):
                if len(heatmaps) > 1:
                    raise UsageError(f"--heatmap {text} stands alone, without other names.")
                chosen.append(text)
            elif text.casefold() in known:
                chosen.append(known[text.casefold()])
            else:
                raise UsageError(
                    f"--heatmap {text!r} is not in the list {abnormalities.name}. "
                    f"Choose a name of it ({abnormalities.names[0]}, ...), all-positive or top:3."
                )
        return cls(tuple(dict.fromkeys(chosen)), method, kinds, written)

    def __bool__(self) -> bool:
        return bool(self.heatmaps or self.reports)

    def are_in(self, record: dict[str, Any], folder: Path) -> bool:
        """Whether a case's record says that this very request was fulfilled, and its files are there."""
        if not self:
            return True
        files = record.get("files", [])
        return record.get("files_request") == self.to_dict() and all((folder / row["path"]).is_file() for row in files)

    def to_dict(self) -> dict[str, Any]:
        """The request as a record keeps it."""
        return {
            "heatmaps": list(self.heatmaps),
            "method": self.method,
            "reports": list(self.reports),
            "formats": list(self.formats),
        }

    def write(
        self,
        scorer: "Scorer",
        scan: "PreparedScan",
        scores: "ScanScores",
        abnormalities: AbnormalityList,
        folder: Path,
        on_progress: "Progress",
    ) -> list[dict[str, Any]]:
        """Write the files of one case into its folder.

        Returns:
            A row per file: path in the folder, kind ("heatmap", "heatmap-dicom", "html", "sr"); of heat maps
            abnormality, method and the LPS position of the maximum.

        Raises:
            UsageError: "all-positive" without thresholds.
        """
        from brgsa.heatmap import heatmaps
        from brgsa.report.heatmap_file import heatmap_file_names, save_heatmap

        is_dicom = scan.volume.source.format == "dicom"
        wanted = self._chosen(scores, abnormalities)
        saved = {row.name for row in wanted} if self.heatmaps else set()
        names, files, shown = heatmap_file_names(abnormalities.names), [], []
        forced = bool(scores.forced)
        for heat in heatmaps(scorer, scan, wanted, self.method, on_progress):
            position = [round(value, 2) for value in heat.maximum_lps]
            about = {"abnormality": heat.name, "method": heat.method, "maximum_lps": position}
            if heat.name in saved and "nifti" in self.formats:
                save_heatmap(folder / names[heat.name], heat.volume, scan.volume, forced)
                files.append({"path": names[heat.name], "kind": "heatmap", **about})
            if heat.name in saved and "dicom" in self.formats and is_dicom:
                from brgsa.report.parametric_map import write_parametric_map

                path = names[heat.name].removesuffix(".nii.gz") + ".dcm"
                number = abnormalities.names.index(heat.name)
                write_parametric_map(folder / path, heat, scan.volume, scores.settings, scores.notice, number, forced)
                files.append({"path": path, "kind": "heatmap-dicom", **about})
            if "html" in self.reports and len(shown) < MOST_MAPS_IN_REPORT:
                shown.append(heat)
        on_progress(1.0, "writing the reports")
        if "html" in self.reports:
            from brgsa.report.html import write_html

            write_html(folder / REPORTS["html"], scores, scan, shown, scorer.weights.plan.to_dict())
            files.append({"path": REPORTS["html"], "kind": "html"})
        if "sr" in self.reports and is_dicom:
            from brgsa.report.sr import write_sr

            write_sr(folder / REPORTS["sr"], scores, abnormalities, scan.volume.source)
            files.append({"path": REPORTS["sr"], "kind": "sr"})
        missing = ["SR"] * ("sr" in self.reports) + ["heat maps"] * ("dicom" in self.formats)
        if missing and not is_dicom:
            print(f"{scores.case}: no DICOM {' or '.join(missing)}, because the scan is not DICOM", file=sys.stderr)
        return files

    def _chosen(self, scores: "ScanScores", abnormalities: AbnormalityList) -> list[Abnormality]:
        """The abnormalities to make heat maps of, in the order in which a report shows them."""
        by_name = {abnormality.name: abnormality for abnormality in abnormalities}
        if not self.heatmaps:
            return [by_name[name] for name in highest(scores, MAPS_IN_REPORT if "html" in self.reports else 0)]
        first = self.heatmaps[0]
        if first == ALL_POSITIVE:
            if all(row.positive is None for row in scores.scores):
                raise UsageError("--heatmap all-positive needs thresholds, in the list or the calibration. Use top:3.")
            return [by_name[name] for name in highest(scores, len(by_name)) if scores[name].positive]
        if _is_top(first):
            return [by_name[name] for name in highest(scores, int(first.removeprefix(TOP)))]
        return [by_name[name] for name in self.heatmaps]


def _words(text: str, option: str, known: Collection[str]) -> tuple[str, ...]:
    """The words of a list with commas, each once.

    Raises:
        UsageError: an unknown word.
    """
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if word not in known:
            raise UsageError(f"{option} {word!r} is unknown. Choose among {', '.join(known)}.")
    return words


def _is_top(text: str) -> bool:
    count = text.removeprefix(TOP)
    return text.startswith(TOP) and count.isdecimal() and int(count) > 0


def highest(scores: "ScanScores", count: int) -> list[str]:
    """Names in falling order of the score, or of its distance from the threshold where every row has one."""
    thresholds = all(row.threshold is not None for row in scores.scores)
    rows = sorted(scores.scores, key=lambda row: -(row.score - row.threshold if thresholds else row.score))
    return [row.name for row in rows[:count]]
