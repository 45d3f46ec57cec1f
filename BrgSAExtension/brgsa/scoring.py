"""Score a scan against abnormalities: read, check, preprocess, encode once, compare with every prompt.

    Scorer.from_pretrained("phantom").score("ct.nii.gz", AbnormalityList.preset("ct-rate-18"))

The score of one prompt is `(cos(v, t) + cos(v_hat, t)) / 2` (kind "final"; docs/method.md a.4), v the embedding of the
scan, v_hat what the bank makes of it, t the embedding of the prompt. Kind "direct" is the first cosine alone, "bank"
the second. Several prompts of one abnormality are averaged as unit vectors; with prompts "pair" the score of the
negative prompts is subtracted.
"""

import contextlib
import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.calibration import Calibration, PromptSets
from brgsa.ct.cases import Case, absolute, case_name
from brgsa.ct.checks import Finding, check_ct, require_fit
from brgsa.ct.volume import CTVolume, Source, read_ct
from brgsa.device import choose_device, choose_precision, computing, out_of_memory
from brgsa.errors import SetupError, UsageError
from brgsa.files.embedding_cache import EmbeddingCache
from brgsa.preprocess import FIDELITIES, ModelGrid, to_grid, to_input
from brgsa.prompts import PromptTokenizer, prompt_sets
from brgsa.scores import AbnormalityScore, ScanScores
from brgsa.weights.folder import Weights, open_weights

SCORE_KINDS = ("final", "direct", "bank")

# Called with the fraction done in [0, 1] and the stage; what it raises ends the work, which is how a caller cancels.
Progress = Callable[[float, str], None]


def silent(fraction: float, stage: str) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class PreparedScan:
    """A scan as it goes into the encoder, and the scan itself.

    Attributes:
        volume: the scan.
        hu: HU on the model's grid, float32 (X, Y, Z), see `brgsa.preprocess.to_grid`.
        grid: how the model's grid lies in the scan.
        findings: what the input checks say.
        seconds: time of each stage.
    """

    volume: CTVolume
    hu: np.ndarray
    grid: ModelGrid
    findings: tuple[Finding, ...]
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanEmbedding:
    """A scan as the model sees it.

    Attributes:
        case: name for tables.
        image: v, (E,) float32, not normalised.
        image_from_bank: v_hat, (E,) float32.
        grid: how the model's grid lies in the scan.
        findings: what the input checks say.
        source: the file.
        seconds: time of each stage; an encoding of 0 came from the cache.
    """

    case: str
    image: np.ndarray
    image_from_bank: np.ndarray
    grid: ModelGrid
    findings: tuple[Finding, ...]
    source: Source
    seconds: dict[str, float] = field(default_factory=dict)


class Scorer:
    """A model in memory that scores scans.

    Make one with `from_pretrained`; it keeps the last scan's embedding and every prompt's, so a second list of
    abnormalities on the same scan costs only its new prompts.
    """

    def __init__(self, weights: Weights, device: str, precision: str, fidelity: str, cache: EmbeddingCache | None):
        self.weights = weights
        self.device = device
        self.precision = precision
        self.fidelity = fidelity
        self.calibration = Calibration.load(weights.folder)
        self._cache = cache
        self._last: tuple[Any, ScanEmbedding] | None = None
        self._texts: dict[str, np.ndarray] = {}
        self.model = weights.load_model()
        with out_of_memory(device):
            self.model.to(device)
        self.tokenizer = PromptTokenizer(weights.vocabulary, self.model.config.text_length)

    @classmethod
    def from_pretrained(
        cls,
        weights: str | os.PathLike = "phantom",
        *,
        device: str = "auto",
        precision: str = "fp32",
        fidelity: str = "exact",
        cache: bool = True,
    ) -> "Scorer":
        """Open weights by name or folder.

        Args:
            device: "auto" (CUDA, else Apple's MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
            precision: of the image encoder: "fp32", "bf16" or "fp16". Prompts are always encoded in fp32.
            fidelity: "exact" or "reference", see `brgsa.preprocess`.
            cache: keep embeddings on disk.

        Raises:
            SetupError: the weights are missing or damaged, or the device is not there.
            UsageError: an unknown device, precision or fidelity, or a precision that the device cannot compute in.
        """
        if fidelity not in FIDELITIES:
            raise UsageError(f"unknown fidelity {fidelity!r}. Choose one of {', '.join(FIDELITIES)}.")
        device = choose_device(device)
        precision = choose_precision(precision, device)
        return cls(open_weights(weights), device, precision, fidelity, EmbeddingCache() if cache else None)

    def like(self, precision: str, fidelity: str) -> "Scorer":
        """This scorer with another precision and fidelity; both share the model.

        Raises:
            UsageError: an unknown precision or fidelity, or one that the device cannot compute in.
        """
        if fidelity not in FIDELITIES:
            raise UsageError(f"unknown fidelity {fidelity!r}. Choose one of {', '.join(FIDELITIES)}.")
        other = copy.copy(self)
        other.precision, other.fidelity = choose_precision(precision, self.device), fidelity
        other._last = None
        return other

    def score(
        self,
        ct: str | os.PathLike | CTVolume,
        abnormalities: AbnormalityList,
        *,
        prompts: str = "single",
        kind: str = "final",
        case: str | None = None,
        series: str | None = None,
        force: bool = False,
        on_progress: Progress = silent,
    ) -> ScanScores:
        """Score one scan.

        Args:
            ct: a file or DICOM folder, or a volume from `read_ct`.
            abnormalities: what to look for.
            prompts: "single", "pair" or "ensemble", see `brgsa.prompts.prompt_sets`.
            kind: "final", "direct" or "bank".
            case: name in tables; the file's name by default.
            series: UID of the DICOM series to read.
            force: score it even where the input checks say that its scores mean nothing; the scores are marked.

        Raises:
            InputError: the scan cannot be read.
            RefusedScanError: the input checks say "error", and `force` is off.
            OutOfMemoryError: it does not fit.
        """
        _require_kind(kind)
        embedding = self.embed(ct, case=case, series=series, force=force, on_progress=on_progress)
        on_progress(0.97, "comparing with the prompts")
        result = self.score_embedding(embedding, abnormalities, prompts=prompts, kind=kind)
        on_progress(1.0, "done")
        return result

    def embed(
        self,
        ct: str | os.PathLike | CTVolume | PreparedScan,
        *,
        case: str | None = None,
        series: str | None = None,
        force: bool = False,
        on_progress: Progress = silent,
    ) -> ScanEmbedding:
        """Read, check, preprocess and encode one scan. The last file's embedding is kept and used again.

        Raises:
            RefusedScanError: the input checks say "error", and `force` is off; a prepared scan was judged before.
        """
        key = None if isinstance(ct, CTVolume | PreparedScan) else _identity(Path(ct), series)
        if key is not None and self._last is not None and self._last[0] == key:
            if not force:
                require_fit(Path(ct), self._last[1].findings)
            return replace(self._last[1], case=case or case_name(Path(ct)))
        scan = (
            ct
            if isinstance(ct, PreparedScan)
            else self.prepare(ct, series=series, force=force, on_progress=on_progress)
        )
        clock = _Stopwatch()
        on_progress(0.10, "encoding the scan")
        image = self._embed_grid(to_input(scan.hu, self.weights.plan), on_progress)
        clock.lap("encode")
        with torch.inference_mode(), computing(self.device):
            from_bank = self.model.bank(torch.from_numpy(image).to(self.device)[None])[0].float().cpu().numpy()
        _require_finite(from_bank, "the bank", "Import the weights again.")
        source = scan.volume.source
        embedding = ScanEmbedding(
            case=case or case_name(source.path),
            image=image,
            image_from_bank=from_bank,
            grid=scan.grid,
            findings=scan.findings,
            source=source,
            seconds={**scan.seconds, **clock.seconds},
        )
        if key is not None:
            self._last = (key, embedding)
        return embedding

    def prepare(
        self,
        ct: str | os.PathLike | CTVolume,
        *,
        series: str | None = None,
        force: bool = False,
        on_progress: Progress = silent,
    ) -> PreparedScan:
        """Read, check and preprocess one scan: what `embed` starts with and `brgsa.heatmap` needs again.

        Raises:
            RefusedScanError: the input checks say "error", and `force` is off.
        """
        clock = _Stopwatch()
        on_progress(0.0, "reading")
        volume = ct if isinstance(ct, CTVolume) else read_ct(ct, series)
        clock.lap("read")
        on_progress(0.05, "checking the input")
        plan = self.weights.plan
        findings = tuple(check_ct(volume, plan.window_mm))
        if not force:
            require_fit(volume.source.path, findings)
        clock.lap("check")
        on_progress(0.08, "preprocessing")
        hu, grid = to_grid(volume, plan, self.fidelity)
        clock.lap("preprocess")
        return PreparedScan(volume, hu, grid, findings, clock.seconds)

    def score_embedding(
        self, embedding: ScanEmbedding, abnormalities: AbnormalityList, *, prompts: str = "single", kind: str = "final"
    ) -> ScanScores:
        """Compare an embedded scan with the prompts of a list: only prompts not seen before are encoded."""
        _require_kind(kind)
        started = time.perf_counter()
        sets = [prompt_sets(abnormality, prompts) for abnormality in abnormalities]
        texts = list(dict.fromkeys(text for pair in sets for side in pair for text in side))
        vectors = dict(zip(texts, self.embed_texts(texts), strict=True))
        rows = []
        for abnormality, (positives, negatives) in zip(abnormalities, sets, strict=True):
            score = _score(embedding, [vectors[text] for text in positives], kind)
            if negatives:
                score -= _score(embedding, [vectors[text] for text in negatives], kind)
            rows.append(self._row(abnormality, (positives, negatives), prompts, kind, score))
        return ScanScores(
            case=embedding.case,
            path=str(embedding.source.path),
            scores=tuple(rows),
            findings=embedding.findings,
            notice=self.weights.notice,
            messages=(*embedding.source.messages, *self.tokenizer.warnings(texts)),
            settings=self.settings(abnormalities, prompts, kind),
            seconds={**embedding.seconds, "compare": time.perf_counter() - started},
        )

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embed prompts, (S, E) float32, not normalised. Each text is encoded once for these weights, then cached."""
        missing = [text for text in dict.fromkeys(texts) if self._known_text(text) is None]
        if missing:
            ids, mask = self.tokenizer.encode(missing)
            with out_of_memory(self.device), torch.inference_mode(), computing(self.device):
                vectors = self.model.embed_text(
                    torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)
                )
            vectors = vectors.float().cpu().numpy()
            _require_finite(vectors, "the text encoder", "Import the weights again.")
            for text, vector in zip(missing, vectors, strict=True):
                self._texts[text] = vector
                if self._cache:
                    self._cache.put(self._text_key(text), vector)
        if not texts:
            return np.zeros((0, self.model.config.embedding_size), np.float32)
        return np.stack([self._texts[text] for text in texts])

    def settings(self, abnormalities: AbnormalityList, prompts: str, kind: str) -> dict[str, Any]:
        """Everything that the scores depend on besides the scan."""
        return {
            "weights": self.weights.name,
            "weights_checksum": self.weights.checksum,
            "calibration": None if self.calibration is None else self.calibration.digest,
            "abnormalities": abnormalities.name,
            "prompts": prompts,
            "score": kind,
            "fidelity": self.fidelity,
            "device": self.device,
            "precision": self.precision,
        }

    def _embed_grid(self, volume: np.ndarray, on_progress: Progress) -> np.ndarray:
        """Encode a normalised volume (1, X, Y, Z), or take the embedding of the very same values from the cache."""
        digest = hashlib.sha256(np.ascontiguousarray(volume.transpose(0, 3, 2, 1)))
        key = f"image {self.weights.checksum} {self.precision} {digest.hexdigest()}"
        cached = self._cache.get(key) if self._cache else None
        if cached is not None and cached.shape == (self.model.config.embedding_size,):
            return cached
        with out_of_memory(self.device), torch.inference_mode(), self._block_progress(on_progress):
            tensor = torch.from_numpy(volume).to(self.device)[None]
            with computing(self.device, self.precision):
                image = self.model.embed_image(tensor)[0].float().cpu().numpy()
        _require_finite(image, "the image encoder", f"It computed in {self.precision}; use fp32.")
        if self._cache:
            self._cache.put(key, image)
        return image

    @contextlib.contextmanager
    def _block_progress(self, on_progress: Progress) -> Iterator[None]:
        """Report after every block of the encoder, which is also where a cancel takes effect."""
        blocks = self.model.vision.blocks
        handles = [
            block.register_forward_hook(
                lambda *_, done=done: on_progress(0.10 + 0.85 * done / len(blocks), "encoding the scan")
            )
            for done, block in enumerate(blocks, start=1)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _row(
        self, abnormality: Abnormality, texts: PromptSets, prompts: str, kind: str, score: float
    ) -> AbnormalityScore:
        probability, threshold = None, abnormality.threshold
        if self.calibration:
            probability, calibrated = self.calibration.apply(abnormality.name, texts, prompts, kind, score)
            threshold = calibrated if threshold is None else threshold
        positive = None if threshold is None else score > threshold
        return AbnormalityScore(abnormality.name, score, probability, threshold, positive)

    def _known_text(self, text: str) -> np.ndarray | None:
        if text not in self._texts and self._cache:
            vector = self._cache.get(self._text_key(text))
            if vector is not None and vector.shape == (self.model.config.embedding_size,):
                self._texts[text] = vector
        return self._texts.get(text)

    def _text_key(self, text: str) -> str:
        return f"text {self.weights.checksum} {text}"


def settings_digest(settings: dict[str, Any], abnormalities: AbnormalityList) -> str:
    """A short text that differs when the scores would: settings, and the list down to every prompt and threshold."""
    kept = {key: value for key, value in settings.items() if key not in ("device",)}
    content = json.dumps([kept, [row.to_dict() for row in abnormalities]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _score(embedding: ScanEmbedding, prompts: Sequence[np.ndarray], kind: str) -> float:
    """The score of one side: the mean of the prompts as unit vectors, compared with v, v_hat or both."""
    text = np.mean([_unit(prompt) for prompt in prompts], axis=0)
    direct = float(_unit(embedding.image) @ _unit(text))
    if kind == "direct":
        return direct
    bank = float(_unit(embedding.image_from_bank) @ _unit(text))
    return bank if kind == "bank" else (direct + bank) / 2


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = np.asarray(vector, np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _require_finite(vectors: np.ndarray, part: str, advice: str) -> None:
    """No score is made of a vector with NaN or infinity, and none is kept."""
    if not np.isfinite(vectors).all():
        raise SetupError(f"{part} gave numbers that are not finite. {advice}")


def _require_kind(kind: str) -> None:
    if kind not in SCORE_KINDS:
        raise UsageError(f"unknown score {kind!r}. Choose one of {', '.join(SCORE_KINDS)}.")


def _identity(path: Path, series: str | None) -> tuple | None:
    """What changes when the file, or any file of the folder, does; None where there is none."""
    state = Case("", path, series).state()
    return state and (absolute(path), series, state)


class _Stopwatch:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._since
        self._since = now
