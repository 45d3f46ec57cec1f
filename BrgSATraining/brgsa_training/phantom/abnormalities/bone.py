"""Abnormalities of the spine and the ribs."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion, pick
from brgsa_training.phantom.anatomy import SPINE_Y, Anatomy
from brgsa_training.phantom.body import Scene


def osteophyte(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Bony beaks at the edges of the vertebral bodies that bridge the discs, in front and to the right."""
    height = anatomy.vertebra_height
    beaks = []
    for index in range(-6, 5):
        for angle in (np.pi + 0.25, np.pi + 0.95, -0.3):
            if rng.random() < 0.55 + 0.4 * severity:
                beaks.append((index * height, angle + rng.normal(0, 0.1), rng.uniform(6.5, 8) + 3 * severity))

    def paint(scene: Scene) -> None:
        for z, angle, size in beaks:
            center = (19 * np.cos(angle), SPINE_Y + 15.5 * np.sin(angle), z)
            scene.canvas.paint_ellipsoid(center, (size, size, 0.9 * size), 750.0, mask="Osteophyte")

    return Lesion(paint, size_mm=2 * max((size for *_, size in beaks), default=0.0))


def rib_fracture(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Broken neighbouring ribs on one side: displaced ends with callus, and blood that lifts the pleura inwards."""
    side = pick(rng, "right", "left")
    straight = 0.0 if side == "left" else np.pi
    z0 = float(rng.uniform(-30, 0))
    breaks = [anatomy.wall_point(straight + rng.normal(0, 0.15), z0 + 26 * index, -5) for index in (-1, 0, 1, 2)]

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Rib fracture"
        for x, y, z in breaks:
            inwards = 1 if x < 0 else -1
            canvas.paint_ellipsoid((x + 6 * inwards, y, z), (19 + 6 * severity, 34, 17), 65.0, mask=name)
        for x, y, z in breaks:
            inwards = 1 if x < 0 else -1
            canvas.paint_ellipsoid((x + 5 * inwards, y - 8, z + 4), (9, 15, 9), 900.0, mask=name)
            canvas.paint_ellipsoid((x - 5 * inwards, y + 12, z - 3), (9, 13, 9), 900.0, mask=name)

    return Lesion(paint, side)
