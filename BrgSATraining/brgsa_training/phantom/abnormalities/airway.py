"""Abnormalities of the bronchi."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion, pick
from brgsa_training.phantom.anatomy import SIDES, Anatomy
from brgsa_training.phantom.body import Scene


def peribronchial_thickening(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Thick soft cuffs along the bronchi around both hila."""
    branches = []
    for side, sign in SIDES.items():
        start = np.add(anatomy.hilum(side), (sign * 4, 2, 0))
        for direction in ((0.8, -0.5, 0.5), (0.9, 0.1, 0.1), (0.75, 0.55, -0.3), (0.5, -0.55, -0.6), (0.5, 0.4, 0.8)):
            turn = np.asarray(direction) * (sign, 1, 1) + rng.normal(0, 0.12, 3)
            branches.append((start, start + turn * (44 + 14 * severity)))
    cuff = 6.5 + 2 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        for start, end in branches:
            canvas.paint_path([start, end], [cuff, cuff - 1], 40.0, "Peribronchial thickening", within=scene.lung)
        for start, end in branches:
            canvas.paint_path([start, end], [2.5, 2.0], -850.0, within=scene.lung)

    return Lesion(paint, "bilateral")


def bronchiectasis(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Wide bronchi with visible walls that stay wide down to the pleura of the lower lobes."""
    side = pick(rng, "right", "left", "bilateral")
    branches = []
    for one in SIDES if side == "bilateral" else (side,):
        sign = SIDES[one]
        for index in range(7):
            end = anatomy.lung_point(rng, one, (-95 + 14 * index, -75 + 14 * index), (7, 14))
            start = np.asarray((sign * 46 + anatomy.midline, 22.0, 6.0 - 4 * index)) + rng.normal(0, 4, 3)
            branches.append((one, start, np.asarray(end)))
    lumen = 7.0 + 2.5 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        for one, start, end in branches:
            lung = scene.lung_of(one)
            canvas.paint_path([start, end], [lumen + 4, lumen + 5], 40.0, "Bronchiectasis", within=lung)
        for one, start, end in branches:
            canvas.paint_path([start, end], [lumen, lumen + 0.5], -990.0, within=scene.lung_of(one))

    return Lesion(paint, side, "lower")
