"""Abnormalities of the lung's tissue that are round, dense or hazy."""

import numpy as np

from brgsa_training.phantom.abnormalities.lesion import DEEP, SUBPLEURAL, Lesion, pick
from brgsa_training.phantom.anatomy import LOBE_Z, SIDES, Anatomy
from brgsa_training.phantom.body import Scene


def lung_nodule(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Many round solid nodules with chalk in their middle, in both lungs."""
    nodules = []
    for index in range(8 + int(6 * severity)):
        side = ("right", "left")[index % 2]
        nodules.append((anatomy.lung_point(rng, side, (-75, 95), (11, 40)), rng.uniform(8.5, 10) + 4 * severity))

    def paint(scene: Scene) -> None:
        for center, radius in nodules:
            scene.canvas.paint_ellipsoid(center, (radius,) * 3, 90.0, mask="Lung nodule", within=scene.lung)
            scene.canvas.paint_ellipsoid(center, (0.6 * radius,) * 3, 550.0, within=scene.lung)

    return Lesion(paint, "bilateral", "", 2 * max(radius for _, radius in nodules))


def lung_mass(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """One large solid mass with spicules, a bright rim and a dead middle."""
    side = pick(rng, "right", "left")
    radius = 33 + 11 * severity
    # In the front of the upper lobe beside the hilum: few other lesions lie there.
    center = np.array((SIDES[side] * 64, -22, 56)) + rng.normal(0, 6, 3)
    radii = radius * rng.uniform(0.85, 1.1, 3)
    spicules = [np.asarray(center) + 1.45 * radius * _direction(rng) for _ in range(12)]

    def paint(scene: Scene) -> None:
        name = "Lung mass"
        scene.canvas.paint_ellipsoid(center, radii, 180.0, mask=name, within=scene.lung)
        for tip in spicules:
            scene.canvas.paint_path([center, tip], [8, 2], 90.0, name, within=scene.lung)
        scene.canvas.paint_ellipsoid(center, 0.5 * radii, -10.0, within=scene.lung)

    return Lesion(paint, side, "upper", 2 * float(max(radii)))


def lung_opacity(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Wide ground-glass haze through which vessels stay visible."""
    side = pick(rng, "right", "left", "bilateral")
    clouds = []
    for one in SIDES if side == "bilateral" else (side,):
        for z_range in ((30, 90), (-50, 20)):
            center = anatomy.lung_point(rng, one, z_range, (12, 45))
            clouds.append((center, rng.uniform(30, 36) + 14 * severity))

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        ragged = scene.field(rng, 12)
        for center, radius in clouds:
            box, distance = canvas.ellipsoid(center, (radius,) * 3, margin=20)
            share = np.clip(0.5 - (distance + 5 * ragged[box]) / 14, 0, 1) * scene.lung[box]
            canvas.paint(box, share, np.maximum(canvas.hu[box], -520 + 30 * ragged[box]), "Lung opacity")

    return Lesion(paint, side, "", 2 * max(radius for _, radius in clouds))


def consolidation(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """A lobe filled with dense tissue, with air-filled bronchi in it."""
    side, site = pick(rng, "right", "left"), pick(rng, "upper", "middle", "lower")
    z = float(np.mean(LOBE_Z[site]))
    radii = np.array((46.0, 58.0, 34.0)) * (0.8 + 0.3 * severity)
    center = (SIDES[side] * 78 * float(anatomy.taper(z)), float(rng.uniform(-12, 20)), z)
    hilum = anatomy.hilum(side)
    bronchi = [np.asarray(center) + rng.normal(0, 20, 3) for _ in range(4)]

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        ragged = scene.field(rng, 10)
        box, distance = canvas.ellipsoid(center, radii, margin=10)
        share = canvas.share(distance + 4 * ragged[box]) * scene.lung_of(side)[box]
        canvas.paint(box, share, 45.0, "Consolidation")
        for tip in bronchi:
            start = np.asarray(hilum) + 0.35 * (tip - np.asarray(hilum))
            canvas.paint_path([start, tip], [3.2, 2.2], -900.0, within=scene.lung_of(side))

    return Lesion(paint, side, site, 2 * float(radii[1]))


def pneumonia(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Many rounded patches under the pleura of both lungs, dense in the middle and hazy around."""
    patches = []
    for index in range(14 + int(8 * severity)):
        side = ("right", "left")[index % 2]
        patches.append((anatomy.lung_point(rng, side, (-85, 60), (3, 14)), rng.uniform(20, 27)))

    def paint(scene: Scene) -> None:
        canvas = scene.canvas
        for center, radius in patches:
            box, distance = canvas.ellipsoid(center, (radius,) * 3, margin=4)
            share = np.clip(0.5 - distance / 8, 0, 1) * scene.lung[box]
            dense = -420 + 400 * np.clip(-distance / (0.6 * radius), 0, 1)
            canvas.paint(box, share, np.maximum(canvas.hu[box], dense), "Pneumonia")

    return Lesion(paint, "bilateral", "", 2 * max(radius for _, radius in patches))


def lung_cyst(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Round thin-walled pockets of air, several in each lung."""
    cysts = []
    for index in range(6 + int(4 * severity)):
        side = ("right", "left")[index % 2]
        cysts.append((anatomy.lung_point(rng, side, (-70, 70), DEEP), rng.uniform(18, 22) + 5 * severity))

    def paint(scene: Scene) -> None:
        for center, radius in cysts:
            scene.canvas.paint_ellipsoid(center, (radius + 5,) * 3, 20.0, mask="Lung cyst", within=scene.lung)
        for center, radius in cysts:
            scene.canvas.paint_ellipsoid(center, (radius,) * 3, -1000.0, within=scene.lung)

    return Lesion(paint, "bilateral", "", 2 * max(radius for _, radius in cysts))


def tuberculosis(anatomy: Anatomy, severity: float, rng: np.random.Generator) -> Lesion:
    """Thick-walled cavities in the top of one lung, with a shower of small nodules around them."""
    side = pick(rng, "right", "right", "left")
    cavities = [
        (anatomy.lung_point(rng, side, z_range, (16, 30)), rng.uniform(19, 23) + 6 * severity)
        for z_range in ((75, 95), (45, 60))
    ]
    shower = [anatomy.lung_point(rng, side, (10, 110), SUBPLEURAL) for _ in range(16)]

    def paint(scene: Scene) -> None:
        name, canvas, lung = "Tuberculosis", scene.canvas, scene.lung_of(side)
        for center in shower:
            canvas.paint_ellipsoid(center, (5.5,) * 3, 50.0, mask=name, within=lung)
        for center, radius in cavities:
            canvas.paint_ellipsoid(center, (radius,) * 3, 60.0, mask=name, within=lung)
        for center, radius in cavities:
            canvas.paint_ellipsoid(center, (0.58 * radius,) * 3, -990.0, within=lung)

    return Lesion(paint, side, "upper", 2 * max(radius for _, radius in cavities))


def _direction(rng: np.random.Generator) -> np.ndarray:
    """A random unit vector."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)
