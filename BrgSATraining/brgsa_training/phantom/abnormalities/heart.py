"""Abnormalities of the heart, its sac and its arteries."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion
from brgsa_training.phantom.anatomy import Anatomy
from brgsa_training.phantom.body import Scene


def cardiomegaly(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """A heart enlarged in all directions."""
    anatomy.heart_size *= 1.18 + 0.14 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        canvas.mark(canvas.everything, canvas.share(scene.heart_distance), "Cardiomegaly")

    return Lesion(paint, size_mm=2 * float(anatomy.heart_radii[0]))


def pericardial_effusion(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Fluid between the heart and its sac."""
    anatomy.sac += 9 + 9 * severity
    thickness = anatomy.sac - 3

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        in_sac = canvas.share(np.abs(scene.heart_distance - thickness / 2) - thickness / 2)
        # Not into the roots of the great vessels, the lungs or the spine.
        free = canvas.share(scene.chest_distance + 4) * (1 - scene.lung)
        free = free * canvas.share(canvas.y - 30) * (canvas.hu < 150)
        canvas.paint(canvas.everything, in_sac * free, 12.0, "Pericardial effusion")

    return Lesion(paint, size_mm=float(thickness))


def coronary_artery_wall_calcification(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Chalk along the arteries on the heart's surface: front, left side, right side."""
    arteries = [
        [(-1.9, 0.75), (-1.3, 0.6), (-0.8, 0.4), (-0.4, 0.1)],
        [(2.2, 0.8), (1.5, 0.65), (0.9, 0.55), (0.4, 0.45)],
        [(-2.4, 0.55), (-2.3, 0.1), (-2.2, -0.3), (-1.8, -0.6)],
    ]
    shown = arteries if severity > 0.6 else arteries[:2]
    paths = [[anatomy.heart_surface(lon + rng.normal(0, 0.06), lat, 1.0) for lon, lat in path] for path in shown]
    radius = 3.6 + 1.6 * severity

    def paint(scene: Scene) -> None:
        for path in paths:
            scene.canvas.paint_path(path, [radius] * 4, 1000.0, "Coronary artery wall calcification")

    return Lesion(paint)


def pericardial_calcification(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """An eggshell of chalk over the lower and right half of the heart."""
    thickness = 4.5 + 2.5 * severity
    height = float(rng.uniform(-12, 8))

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        cx, _, cz = anatomy.heart_center
        shell = np.abs(scene.heart_distance - 1) - thickness / 2
        lower = canvas.z - cz - height + 0.35 * (canvas.x - cx)
        share = canvas.share(np.maximum(shell, lower))
        canvas.paint(canvas.everything, share, 950.0, "Pericardial calcification")

    return Lesion(paint)
