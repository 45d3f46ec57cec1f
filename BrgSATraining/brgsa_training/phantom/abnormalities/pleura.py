"""Abnormalities of the pleural space: fluid, pus, air, chalk."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import Lesion, pick
from brgsa_training.phantom.anatomy import SIDES, Anatomy
from brgsa_training.phantom.body import Scene


def pleural_effusion(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Free fluid behind and below the lung, the patient lying on the back."""
    side = pick(rng, "right", "left", "bilateral")
    level = 62 - 34 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        # A lens that climbs along the wall: the level falls towards the top of the chest.
        above = level + 0.28 * (canvas.z + 60) - 0.10 * np.abs(canvas.x) - canvas.y
        for one in SIDES if side == "bilateral" else (side,):
            canvas.paint(canvas.everything, canvas.share(above) * scene.lung_of(one), 8.0, "Pleural effusion")

    return Lesion(paint, side, "lower")


def pneumothorax(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Air in front of and above a lung that has shrunk and grown denser; the heart moves away."""
    side = pick(rng, "right", "left")
    anatomy.midline -= SIDES[side] * (4 + 5 * severity)
    gap = 26 + 18 * severity

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        lung = scene.lung_of(side)
        # The gap is widest in front and at the top, and closes towards the back.
        width = gap * np.clip(0.55 - canvas.y / 110, 0, 1.2) + gap * np.clip((canvas.z - 30) / 90, 0, 0.8)
        collapsed = scene.chest_distance + width
        air = canvas.share(-collapsed) * lung
        canvas.paint(canvas.everything, 0.6 * (1 - air) * lung, np.maximum(canvas.hu, -560.0))
        rim = canvas.share(np.abs(collapsed) - 1.5) * lung
        canvas.paint(canvas.everything, air, -1000.0, "Pneumothorax")
        canvas.paint(canvas.everything, rim, -350.0)

    return Lesion(paint, side, "", gap)


def empyema(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """A lens of pus against the side of the chest wall, with a thick bright rim and a bubble of gas."""
    side = pick(rng, "right", "left")
    z = float(rng.uniform(-45, 0))
    back = float(rng.uniform(0.0, 0.35))
    wall = anatomy.wall_point(back if side == "left" else np.pi - back, z, 6)
    radii = np.array((38.0, 56.0, 62.0)) * (0.9 + 0.25 * severity)
    turn = SIDES[side] * back

    def paint(scene: Scene) -> None:
        canvas, lung, name = scene.canvas, scene.lung_of(side), "Empyema"
        canvas.paint_ellipsoid(wall, radii, 280.0, turn, name, within=lung)
        inner = canvas.share(scene.chest_distance + 6) * lung
        canvas.paint_ellipsoid(wall, radii - 8, 15.0, turn, within=inner)
        gas = (wall[0] - SIDES[side] * 12, wall[1] - 20, wall[2] + 8)
        canvas.paint_ellipsoid(gas, (13, 11, 22), -950.0, within=inner)

    return Lesion(paint, side, "", 2 * float(radii[1]))


def pleural_calcification(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Plaques of chalk inside the ribs and on the diaphragm of both sides."""
    plaques = []
    for straight in (0.0, np.pi):
        for z_range in ((-60, -30), (-20, 15), (25, 55)):
            angle = straight + rng.uniform(-0.9, 0.9)
            plaques.append((anatomy.wall_point(angle, float(rng.uniform(*z_range))), rng.uniform(22, 30)))
    thickness = 5 + 3 * severity

    def paint(scene: Scene) -> None:
        canvas, name = scene.canvas, "Pleural calcification"
        for center, radius in plaques:
            box, distance = canvas.ellipsoid(center, (radius,) * 3)
            sheet = np.maximum(distance, np.abs(scene.chest_distance[box] + thickness / 2) - thickness / 2)
            canvas.paint(box, canvas.share(sheet), 950.0, name)
        for x, y in ((-66.0, 0.0), (66.0, 0.0)):
            center = (x, y, float(anatomy.diaphragm_height(x, y)))
            box, distance = canvas.ellipsoid(center, (34, 40, 26))
            height = canvas.z[:, :, box[2]] - anatomy.diaphragm_height(
                canvas.x[box[0], box[1]], canvas.y[box[0], box[1]]
            )
            sheet = np.maximum(distance, np.abs(height - 1) - thickness / 2)
            canvas.paint(box, canvas.share(sheet) * (canvas.share(scene.heart_distance[box]) < 0.5), 950.0, name)

    return Lesion(paint, "bilateral")
