"""Things that doctors left behind."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion, pick
from brgsa_training.phantom.anatomy import SIDES, Anatomy
from brgsa_training.phantom.body import Scene

METAL_HU = 2800.0


def medical_material(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """A pacemaker or a port under the collar bone with its lead into the heart, and wires in the breastbone."""
    side = pick(rng, "left", "left", "right")
    sign, m = SIDES[side], anatomy.midline
    front = -anatomy.chest[1]
    box = np.array((sign * 76.0, 0.62 * front - 14, 78.0)) + rng.normal(0, 3, 3)
    size = np.array((22.0, 7.5, 20.0)) * (0.85 + 0.2 * severity)
    lead = [box, (sign * 34, -30, 108), (-20 + m, -16, 84), (-28 + m, -12, 20), anatomy.heart_surface(-0.6, -0.5, -14)]
    wires = [(0.0, front - 3, z) for z in (50, 26, 2, -22)] if rng.random() < 0.5 else []

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Medical material"
        canvas.paint_ellipsoid(box, size, METAL_HU, mask=name)
        canvas.paint_path(lead, [2.4] * 5, METAL_HU, name)
        for x, y, z in wires:
            canvas.paint_ellipsoid((x, y, z), (11, 9, 3.5), METAL_HU, mask=name)

    return Lesion(paint, side)
