"""Draw the pictures of docs/phantoms.md: python docs/images/make_phantom_pictures.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from brgsa_training.phantom.phantom import COARSE, FULL, make_phantom
from brgsa_training.phantom.prevalence import labels

FOLDER = Path(__file__).parent
LUNG, SOFT = (-1350, 150), (-160, 350)
SOFT_NAMES = {
    "Arterial wall calcification",
    "Coronary artery wall calcification",
    "Lymphadenopathy",
    "Cardiomegaly",
    "Hiatal hernia",
    "Osteophyte",
    "Medical material",
    "Pericardial effusion",
    "Rib fracture",
    "Empyema",
    "Pericardial calcification",
    "Pleural calcification",
    "Pleural effusion",
}


def show(axes, slice_lp: np.ndarray, window: tuple[int, int], title: str, aspect: float = 1) -> None:
    """One slice; its second axis runs down the page."""
    axes.imshow(slice_lp.T, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect)
    axes.set_title(title, fontsize=7, pad=2)
    axes.axis("off")


def draw_patient() -> None:
    figure, axes = plt.subplots(2, 3, figsize=(7, 4.6))
    rows = slice(40, 225)
    fine, coarse = make_phantom(7, FULL, present={}).voxels, make_phantom(7, COARSE, present={}).voxels
    show(axes[0, 0], fine[:, rows, 52], SOFT, "heart, soft-tissue window")
    show(axes[0, 1], fine[:, rows, 76], LUNG, "bifurcation, lung window")
    show(axes[0, 2], coarse[:, 10:56, 38], LUNG, "the same, 6 mm voxels")
    show(axes[1, 0], fine[:, 134, ::-1], LUNG, "coronal", 2)
    show(axes[1, 1], fine[120, rows, ::-1], SOFT, "sagittal", 2)
    show(axes[1, 2], coarse[:, 33, ::-1], LUNG, "coronal, 6 mm voxels")
    save(figure, "phantom-healthy.png")


def draw_abnormalities() -> None:
    figure, axes = plt.subplots(5, 6, figsize=(9, 6.3))
    for index, (name, panel) in enumerate(zip(labels(), axes.flat, strict=True)):
        phantom = make_phantom(100 + index, FULL, present={name: 0.8}, masks=True)
        mask = phantom.masks[name]
        level = int(np.argmax(mask.sum((0, 1))))
        rows = slice(40, 225)
        show(panel, phantom.voxels[:, rows, level], SOFT if name in SOFT_NAMES else LUNG, name)
        panel.contour(mask[:, rows, level].T, levels=[0.5], colors="tab:orange", linewidths=0.8)
    save(figure, "phantom-abnormalities.png")


def save(figure, name: str) -> None:
    figure.tight_layout(pad=0.3)
    figure.savefig(FOLDER / name, dpi=100)
    plt.close(figure)
    # Grey slices and one colour of line need few colours: a quarter of the size.
    with Image.open(FOLDER / name) as picture:
        picture.convert("RGB").quantize(96, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            FOLDER / name, optimize=True
        )


if __name__ == "__main__":
    draw_patient()
    draw_abnormalities()
