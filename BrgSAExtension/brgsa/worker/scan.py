"""What the worker answers about scans: it keeps one model and one scan in memory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from brgsa.errors import UsageError, first_line
from brgsa.worker.job import Job, RefusedError
from brgsa.worker.protocol import NO_SCAN

if TYPE_CHECKING:
    from numpy import ndarray

    from brgsa.abnormalities import Abnormality, AbnormalityList
    from brgsa.heatmap import HeatMap
    from brgsa.scoring import PreparedScan, Progress, ScanEmbedding, ScanScores, Scorer

# Memory that scoring takes, in multiples of the size of the weights: 3.5 GB for the 0.8 GB of the released model's size
# (`brgsa.doctor`).
GPU_MEMORY_FACTOR = 4

# So many new prompts are encoded in one thread, see `one_thread`.
FEW_PROMPTS = 4


REPORTS = ("html", "sr")


@dataclass
class ScanInMemory:
    """The scan that was scored last.

    Attributes:
        key: what requests call it.
        abnormalities, scores: of the last scoring.
        known: abnormalities whose prompts have been encoded.
        maps: patches (X', Y', Z') of the heat maps made so far, by abnormality and method. The maps themselves are as
            large as the scan and made again from these when they are needed.
    """

    key: str
    prepared: PreparedScan
    embedding: ScanEmbedding
    abnormalities: AbnormalityList
    scores: ScanScores
    known: set[Abnormality]
    maps: dict[tuple[Abnormality, str], ndarray] = field(default_factory=dict)


class ScanRequests:
    """Requests about the scan in memory, and the one that puts it there."""

    def __init__(self) -> None:
        self._scorer: tuple[tuple[str, ...], Scorer] | None = None
        self._scan: ScanInMemory | None = None

    def _check(self, job: Job) -> Mapping[str, Any]:
        from brgsa.ct.checks import check_ct
        from brgsa.ct.volume import read_ct
        from brgsa.weights.folder import open_weights

        job.progress(0.1, "reading")
        path, window_mm = job.values["path"], open_weights(job.values["weights"]).plan.window_mm
        volume = read_ct(path)
        job.progress(0.5, "checking the input")
        return {"findings": [vars(finding) for finding in check_ct(volume, window_mm)]}

    def _score(self, job: Job) -> Mapping[str, Any]:
        abnormalities = _abnormalities(job)
        options = {"prompts": job.values["prompts"], "kind": job.values["kind"]}
        path, scan = job.values["path"], job.values["scan"]
        scorer = self.open_scorer(job)
        self._scan = None

        def progress(fraction: float, stage: str) -> None:
            job.progress(0.3 + 0.65 * fraction, stage)

        with cancel_points(scorer, job):
            prepared = scorer.prepare(path, force=job.values["force"], on_progress=progress)
            embedding = scorer.embed(prepared, case=job.values["case"], on_progress=progress)
        job.progress(0.95, "comparing with the prompts")
        scores = scorer.score_embedding(embedding, abnormalities, **options)
        self._scan = ScanInMemory(scan, prepared, embedding, abnormalities, scores, set(abnormalities))
        return _result(scan, scores)

    def _rescore(self, job: Job) -> Mapping[str, Any]:
        scan, scorer = self.warm(job)
        options = {"prompts": job.values["prompts"], "kind": job.values["kind"]}
        abnormalities = _abnormalities(job)
        new = {each for each in abnormalities if each not in scan.known}
        with one_thread() if len(new) <= FEW_PROMPTS else contextlib.nullcontext():
            scores = scorer.score_embedding(scan.embedding, abnormalities, **options)
        scan.abnormalities, scan.scores = abnormalities, scores
        scan.known |= new
        return _result(scan.key, scores)

    def _heatmap(self, job: Job) -> Mapping[str, Any]:
        scan, scorer = self.warm(job)
        path, method = job.values["path"], job.values["method"]
        abnormality = _abnormality(job.values["abnormality"])
        from brgsa.report.heatmap_file import save_heatmap

        def progress(fraction: float, stage: str) -> None:
            job.progress(0.95 * fraction, stage)

        with cancel_points(scorer, job):
            (heat,) = _maps(scorer, scan, [abnormality], method, progress)
        job.progress(0.95, "writing the heat map")
        save_heatmap(path, heat.volume, scan.prepared.volume)
        x, y, z = heat.maximum_lps
        return {"path": path, "maximum": [-x, -y, z], "method": method}

    def _report(self, job: Job) -> Mapping[str, Any]:
        scan, scorer = self.warm(job)
        path, kind = job.values["path"], job.values["kind"]
        if kind == "html":
            shown = self._write_html(job, path, scan, scorer)
            return {"path": path, "kind": kind, "heatmaps": shown}
        if kind != "sr":
            raise UsageError(f'the kind of report "{kind[:40]}" is unknown. Kinds: {", ".join(REPORTS)}.')
        files = job.values["files"]
        if files is None:
            raise UsageError(
                'the request "report" of the kind "sr" needs "files", the list of files of the DICOM series'
            )
        from brgsa.report.sr import write_sr

        def progress(fraction: float, stage: str) -> None:
            job.progress(0.9 * fraction, stage)

        write_sr(path, scan.scores, scan.abnormalities, files, progress)
        return {"path": path, "kind": kind}

    def _write_html(self, job: Job, path: str, scan: ScanInMemory, scorer: Scorer) -> list[str]:
        """Write the page with the heat maps made so far, or those of the highest scores; return whose they are."""
        from brgsa.batch.case_files import MAPS_IN_REPORT, MOST_MAPS_IN_REPORT, highest
        from brgsa.report.html import write_html

        by_name = {each.name: each for each in scan.abnormalities}
        falling = [by_name[name] for name in highest(scan.scores, len(by_name))]
        made = [each for each in falling if (each, "rollout") in scan.maps]
        chosen = made[:MOST_MAPS_IN_REPORT] or falling[:MAPS_IN_REPORT]

        def progress(fraction: float, stage: str) -> None:
            job.progress(0.9 * fraction, stage)

        with cancel_points(scorer, job):
            maps = list(_maps(scorer, scan, chosen, "rollout", progress))
        job.progress(0.9, "writing the page")
        write_html(path, scan.scores, scan.prepared, maps, scorer.weights.plan.to_dict())
        return [heat.name for heat in maps]

    def warm(self, job: Job) -> tuple[ScanInMemory, Scorer]:
        """The scan that is in memory, if it is the one that the request means.

        Raises:
            RefusedError: it is not.
        """
        if self._scan is None or self._scorer is None or self._scan.key != job.values["scan"]:
            raise RefusedError(NO_SCAN, "this scan is not in memory. Score it first.")
        return self._scan, self._scorer[1]

    def open_scorer(self, job: Job) -> Scorer:
        """The scorer with the request's weights and options: the one in memory, or a new one."""
        from brgsa.weights.folder import open_weights

        weights = job.values["weights"]
        device, precision = job.values["device"], job.values["precision"]
        job.progress(0.02, "checking the weights")
        opened = open_weights(weights)
        key = (opened.checksum, device, precision)
        if self._scorer and self._scorer[0] == key:
            return self._scorer[1]
        self.forget_scorer()
        job.progress(0.05, "loading PyTorch")
        from brgsa.scoring import Scorer

        if warning := memory_warning(device, opened.describe()["bytes"]):
            job.progress(0.14, warning)
        job.progress(0.15, "loading the weights")
        self._scorer = (key, Scorer.from_pretrained(weights, device=device, precision=precision))
        return self._scorer[1]

    def forget_scorer(self) -> None:
        """Give the memory of the model back."""
        self._scorer = self._scan = None
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _maps(
    scorer: Scorer, scan: ScanInMemory, abnormalities: Sequence[Abnormality], method: str, on_progress: Progress
) -> Iterator[HeatMap]:
    """Heat maps on the scan's voxels; those made before cost only the way from the patches to the voxels."""
    import torch

    from brgsa.heatmap import heatmaps, on_scan

    missing = [each for each in abnormalities if (each, method) not in scan.maps]
    new = heatmaps(scorer, scan.prepared, missing, method, on_progress)
    for each in abnormalities:
        if each in missing:
            heat = next(new)
            scan.maps[each, method] = heat.patches
        else:
            heat = on_scan(each.name, method, torch.from_numpy(scan.maps[each, method]), scan.prepared)
        yield heat


def _abnormalities(job: Job) -> AbnormalityList:
    """The list of a request: `abnormalities` holds dicts as the JSON format of abnormality lists has them."""
    from brgsa.abnormalities import AbnormalityList

    return AbnormalityList(job.values["list"], tuple(map(_abnormality, job.values["abnormalities"])))


def _abnormality(row: Mapping[str, Any]) -> Abnormality:
    """One abnormality of a request."""
    from brgsa.abnormalities import Abnormality

    try:
        return Abnormality(**row)
    except TypeError as error:
        raise UsageError(f"an abnormality cannot be used: {first_line(error)}") from error


def _result(scan: str, scores: ScanScores) -> dict[str, Any]:
    return {"scan": scan, "scores": scores.to_dict()}


@contextlib.contextmanager
def cancel_points(scorer: Scorer, job: Job) -> Iterator[None]:
    """Let a cancel take effect before every layer of the image encoder.

    A whole block of the full-size model takes two seconds on two cores.
    """
    model = getattr(scorer, "model", None)
    layers = [] if model is None else [layer for layer in model.modules() if not list(layer.children())]
    hooks = [layer.register_forward_pre_hook(job.check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread.

    A prompt is a few tokens, so threads gain nothing; but where other programs keep the processor busy they wait for
    each other at every layer: 1.05 s instead of 0.13 s for a prompt of the full-size model on two busy cores.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def memory_warning(device: str, weights_bytes: int) -> str | None:
    """What to say before a model is loaded onto an accelerator that has too little free memory for it."""
    import torch

    from brgsa.device import choose_device

    device = choose_device(device)
    if not device.startswith("cuda"):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    needed = GPU_MEMORY_FACTOR * weights_bytes
    if free >= needed:
        return None
    return f"warning: {free / 1e9:.1f} GB of the memory of {device} are free, about {needed / 1e9:.1f} GB are needed"
