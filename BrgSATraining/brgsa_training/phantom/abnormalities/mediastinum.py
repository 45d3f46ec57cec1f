"""Abnormalities between the lungs: nodes, hernia, arteries, air."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion
from brgsa_training.phantom.anatomy import Anatomy
from brgsa_training.phantom.body import Scene


def lymphadenopathy(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Large nodes beside the windpipe, under its fork and at both hila, bulging into the lungs."""
    m = anatomy.midline
    stations = [(-30, 0, 84), (28, -10, 92), (-32, 10, 58), (40, 6, 60), (0, 26, 28), (-52, 10, 34), (54, 8, 26)]
    stations += [(-20, -44, 50), (24, -42, 54)]
    nodes = []
    for x, y, z in stations:
        radius = rng.uniform(9.5, 12) + 6 * severity
        nodes.append((np.array((x + m, y, z)) + rng.normal(0, 3, 3), radius * rng.uniform(0.85, 1.15, 3)))

    def paint(scene: Scene) -> None:
        free = (scene.canvas.hu < 120) & (scene.canvas.hu > -700) | (scene.lung > 0)
        inside = scene.canvas.share(scene.chest_distance) * free
        for center, radii in nodes:
            scene.canvas.paint_ellipsoid(center, radii, 75.0, mask="Lymphadenopathy", within=inside)

    return Lesion(paint, size_mm=2 * float(max(radii.min() for _, radii in nodes)))


def hiatal_hernia(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Stomach that has slipped through the diaphragm: a pouch behind the heart with a level of air."""
    center = np.array((4.0 + rng.normal(0, 3), 27.0, -66.0))
    radii = np.array((30.0, 19.0, 30.0)) * (0.85 + 0.35 * severity)

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Hiatal hernia"
        free = ((canvas.hu < 150) | (scene.heart_distance < 0)) * canvas.share(canvas.y - 48)
        canvas.paint_ellipsoid(center, radii, 70.0, mask=name, within=free)
        canvas.paint_ellipsoid(center, radii - 5, 15.0, within=free)
        box, distance = canvas.ellipsoid(center, radii - 5)
        level = canvas.y[box[0], box[1]] - (center[1] + 1)
        canvas.paint(box, canvas.share(np.maximum(distance, level)) * free[box], -950.0)

    return Lesion(paint, size_mm=2 * float(radii[0]))


def arterial_wall_calcification(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Plaques of chalk in the wall of the aorta, from the arch down."""
    points, radii = anatomy.aorta()
    points, radii = points[2:], radii[2:]
    thickness = 3.5 + 2 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        gaps = scene.field(rng, 11)
        for start, end, radius, end_radius in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            box, distance = canvas.tube(start, end, radius, end_radius, margin=3)
            plaque = np.clip(0.35 + 0.5 * severity + 1.6 * gaps[box], 0, 1) * scene.canvas.share(
                scene.chest_distance[box]
            )
            share = canvas.share(np.abs(distance + 0.5) - thickness / 2) * plaque
            # The next stretch's blood must not be crossed by this one's round cap.
            canvas.paint(box, share, 950.0, "Arterial wall calcification")
        for start, end, radius, end_radius in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            inner = [radius - thickness, end_radius - thickness]
            canvas.paint_path([start, end], inner, anatomy.blood_hu)

    return Lesion(paint)


def pneumomediastinum(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Air that strips the heart, the windpipe and the great vessels from the fat around them."""
    anatomy.sac += 7
    thickness = 6 + 3 * severity
    m = anatomy.midline

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Pneumomediastinum"
        free = (canvas.share(scene.chest_distance + 3) * (1 - scene.lung)) * (canvas.hu < 20)
        around = np.abs(scene.heart_distance - 1 - thickness / 2) - thickness / 2
        front = canvas.y + 14
        canvas.paint(canvas.everything, canvas.share(np.maximum(around, front)) * free, -980.0, name)
        for x, y in ((-12, -34), (14, -36), (-17, 22), (17, 4)):
            canvas.paint_path([(x + m, y, 28), (x + m, 0.6 * y, 140)], [6.5, 5], -980.0, name, within=free)

    return Lesion(paint)
