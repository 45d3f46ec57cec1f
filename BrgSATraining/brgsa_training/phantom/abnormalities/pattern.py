"""Abnormalities that change the texture or the volume of the lungs as a whole."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion, pick
from brgsa_training.phantom.anatomy import SIDES, Anatomy
from brgsa_training.phantom.body import Scene


def emphysema(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Holes in the upper lungs, bullae at the tops, lungs too large: low flat diaphragm, deep chest."""
    for side in anatomy.diaphragm:
        anatomy.diaphragm[side] -= 8 + 10 * severity
    anatomy.lung_hu -= 30
    bullae = [
        (anatomy.lung_point(rng, side, (75, 115), (2, 14)), rng.uniform(14, 18) + 8 * severity)
        for side in ("right", "left", "right", "left")
    ]

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Emphysema"
        holes = scene.field(rng, 9)
        upper = np.clip((canvas.z + 60) / 80, 0, 1)
        share = np.clip(0.9 + 1.2 * holes, 0, 1) * upper * scene.lung * (0.7 + 0.3 * severity)
        canvas.paint(canvas.everything, share, -985.0, name)
        for center, radius in bullae:
            canvas.paint_ellipsoid(center, (radius,) * 3, -1000.0, mask=name, within=scene.lung)

    return Lesion(paint, "bilateral", "upper")


def mosaic_attenuation(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Sharp-edged lobules of dark and of bright lung beside each other, everywhere."""

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        lobules = scene.field(rng, 17)
        bright = np.clip(lobules / 0.25 + 0.5, 0, 1)
        level = -945 + (200 + 60 * severity) * bright
        canvas.paint(canvas.everything, 0.85 * scene.lung, level)
        canvas.mark(canvas.everything, bright * scene.lung, "Mosaic attenuation pattern")

    return Lesion(paint, "bilateral")


def interlobular_septal_thickening(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """A net of thick septa in the lower lungs, and thick fissures."""
    top = 10 + 60 * severity

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Interlobular septal thickening"
        x, y, z = canvas.x, canvas.y, canvas.z
        cells = scene.field(rng, 14)
        # A wall of the net lies where the field crosses zero; 14 mm cells change by about one unit per 9 mm.
        walls = np.clip(1.25 - np.abs(cells) / 0.38, 0, 1) * np.clip((top - z) / 20, 0, 1)
        fissure = np.clip(1.3 - np.abs(z + 0.75 * y - 5) / 5, 0, 1) * (np.abs(x) > 25)
        share = np.maximum(walls * 0.9, fissure) * scene.lung
        canvas.paint(canvas.everything, share, -180.0, name)

    return Lesion(paint, "bilateral", "lower")


def pulmonary_fibrosis(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Honeycomb of small cysts with dense walls under the pleura and at the bases, in small lungs."""
    for side in anatomy.diaphragm:
        anatomy.diaphragm[side] += 12 + 8 * severity
    thickness = 20 + 10 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        comb = scene.field(rng, 7)
        low = np.clip((50 - canvas.z) / 60, 0, 1)
        # Under the pleura of the ribs and of the diaphragm, not along the mediastinum.
        outer = np.maximum(scene.chest_distance, anatomy.diaphragm_height(canvas.x, canvas.y) - canvas.z)
        rind = np.clip((thickness + outer) / 8, 0, 1)
        share = rind * low * scene.lung
        canvas.paint(canvas.everything, share, np.where(comb > 0.7, -930.0, -230.0), "Pulmonary fibrosis")

    return Lesion(paint, "bilateral", "lower")


def pulmonary_fibrotic_sequela(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Old scars at the lung tops: a thick pleural cap and bands that run from it to the hilum."""
    side = pick(rng, "right", "left", "bilateral")
    sides = tuple(SIDES) if side == "bilateral" else (side,)
    bands = []
    for one in sides:
        for _ in range(5):
            end = anatomy.lung_point(rng, one, (65, 122), (2, 9))
            start = np.add(anatomy.hilum(one), rng.normal(0, 8, 3) + np.array((SIDES[one] * 14, 0, 22)))
            bands.append((one, start, end))

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Pulmonary fibrotic sequela"
        for one, start, end in bands:
            middle = (start + np.asarray(end)) / 2 + (0, 0, 4)
            canvas.paint_path([start, middle, end], [4, 4.5, 6], 45.0, name, within=scene.lung_of(one))
        cap = np.clip((9 + 7 * severity + scene.chest_distance) / canvas.edge + 0.5, 0, 1)
        cap = cap * np.clip((canvas.z - 72) / 12, 0, 1)
        for one in sides:
            canvas.paint(canvas.everything, cap * scene.lung_of(one), 40.0, name)

    return Lesion(paint, side, "upper")


def atelectasis(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """A lower lobe collapsed against the spine: dense wedge, diaphragm pulled up, heart pulled over."""
    side = pick(rng, "right", "left")
    anatomy.diaphragm[side] += 16 + 14 * severity
    anatomy.midline += SIDES[side] * (3 + 5 * severity)
    reach = 34 + 16 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        x, y, z = canvas.x, canvas.y, canvas.z
        # Inside the wedge: behind a plane that runs from the hilum out and down to the back of the chest wall.
        wedge = np.abs(x) - reach + 0.55 * (60 - y)
        wedge = np.maximum(wedge - 0.12 * (20 - z), z - 18)
        canvas.paint(canvas.everything, canvas.share(wedge) * scene.lung_of(side), 95.0, "Atelectasis")

    return Lesion(paint, side, "lower")
