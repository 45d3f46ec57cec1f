"""Zero-shot scores of phantoms: every volume of an array against one prompt per abnormality, as `brgsa score` does."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from brgsa.model import BrgSAModel, cosines
from brgsa.prompts import PromptTokenizer
from brgsa_training.data.pairs import Volumes, to_model_input
from brgsa_training.evaluate.delong import delong, delong_interval
from brgsa_training.phantom.prevalence import prevalences

STRONGEST = 5


def prompts() -> list[str]:
    """One prompt per abnormality, in the order of the prevalence table."""
    return [f"There is {row.name}" for row in prevalences()]


@torch.inference_mode()
def image_embeddings(model: BrgSAModel, volumes: Volumes, batch_size: int = 50) -> Tensor:
    """Embeddings v of every volume, (N, E), in order of the cases, where the model is; its mode stays as it was."""
    training, cases, rows = model.training, list(volumes.cases), []
    model.eval()
    for at in tqdm(range(0, len(cases), batch_size), desc="score", unit="batch", leave=False):
        voxels = torch.from_numpy(np.stack([volumes.volume(case) for case in cases[at : at + batch_size]]))[:, None]
        voxels = to_model_input(voxels.to(model.device), volumes.plan, volumes.slope, volumes.intercept)
        rows.append(model.embed_image(voxels))
    model.train(training)
    return torch.cat(rows)


@torch.inference_mode()
def text_embeddings(model: BrgSAModel, tokenizer: PromptTokenizer, texts: Sequence[str]) -> Tensor:
    """Embeddings t of texts, (S, E), where the model is; its mode stays as it was."""
    training = model.training
    model.eval()
    ids, mask = tokenizer.encode(texts)
    text = model.embed_text(torch.from_numpy(ids).to(model.device), torch.from_numpy(mask).to(model.device))
    model.train(training)
    return text


@torch.inference_mode()
def zero_shot_scores(model: BrgSAModel, image: Tensor, text: Tensor, kind: str = "final") -> np.ndarray:
    """Scores (N, S) float32 of embeddings (N, E) and (S, E); kinds as in `brgsa.scoring`, see docs/method.md a.4."""
    direct = cosines(image, text)
    if kind == "direct":
        return direct.cpu().numpy()
    return ((direct + cosines(model.bank(image), text)) / 2).cpu().numpy()


def phantom_scores(model: BrgSAModel, tokenizer: PromptTokenizer, volumes: Volumes, kind: str = "final") -> np.ndarray:
    """Score every volume against one prompt per abnormality, (N, abnormalities)."""
    return zero_shot_scores(model, image_embeddings(model, volumes), text_embeddings(model, tokenizer, prompts()), kind)


def aurocs(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """AUROC of every column of scores (N, A) with labels (N, A); NaN where one class has fewer than two cases."""
    return np.array([delong(column[None], truth)[0][0] for column, truth in zip(scores.T, labels.T, strict=True)])


def auroc_table(scores: np.ndarray, labels: np.ndarray) -> list[str]:
    """Lines of a Markdown table: abnormality, group, prevalence, AUROC with its 95 % interval (DeLong)."""
    lines = ["| abnormality | group | positives | prevalence | AUROC | 95 % interval |", "|---|---|---|---|---|---|"]
    for row, column, truth in zip(prevalences(), scores.T, labels.T, strict=True):
        low, high = delong_interval(column, truth)
        auroc = delong(column[None], truth)[0][0]
        lines.append(
            f"| {row.name} | {row.group} | {int(truth.sum())} | {truth.mean():.1%} | {auroc:.3f} "
            f"| {low:.3f} to {high:.3f} |"
        )
    return lines


def auroc_summary(scores: np.ndarray, labels: np.ndarray) -> str:
    """One line: the mean over all abnormalities, and over those that are ranked best."""
    values = aurocs(scores, labels)
    known = np.sort(values[~np.isnan(values)])
    return (
        f"Macro AUROC over {len(known)} abnormalities: {known.mean():.3f}. "
        f"Mean of the {STRONGEST} strongest: {known[-STRONGEST:].mean():.3f}."
    )
