"""Painting the healthy body: layers from the outside in, then the organs."""

from dataclasses import dataclass

import numpy as np

from brgsa_training.phantom.anatomy import CHEST_MIDDLE_Y, SIDES, SPINE_Y, Anatomy, wall_radius
from brgsa_training.phantom.canvas import Canvas
from brgsa_training.phantom.texture import smooth_field

FAT_HU, MUSCLE_HU, BONE_HU, LIVER_HU, SPLEEN_HU = -100.0, 55.0, 330.0, 105.0, 120.0
RIB_STEP_MM = 26.0


@dataclass
class Scene:
    """A canvas with the organs that abnormalities are painted into.

    Attributes:
        lung: share of each voxel that is lung.
        lung_distance, chest_distance, heart_distance: mm to the surface, negative inside.
        side: -1 in the right half of the patient, 1 in the left, shape (X, Y, 1).
        organs: masks of lung, heart, aorta, chest (everything inside the ribs) and bone, when the canvas keeps masks.
    """

    canvas: Canvas
    anatomy: Anatomy
    lung: np.ndarray
    lung_distance: np.ndarray
    chest_distance: np.ndarray
    heart_distance: np.ndarray
    side: np.ndarray
    organs: dict[str, np.ndarray]

    def lung_of(self, side: str) -> np.ndarray:
        """Share of each voxel that is this lung."""
        return self.lung * (self.side == SIDES[side])

    def field(self, rng: np.random.Generator, step_mm: float) -> np.ndarray:
        """A smooth random field on the canvas, see `texture.smooth_field`."""
        return smooth_field(self.canvas.grid, self.canvas.region, rng, step_mm)


def paint_body(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Scene:
    """Paint the whole healthy patient; `rng` draws the textures and the vessels' branches."""
    x, y, z = canvas.x, canvas.y, canvas.z
    everything = canvas.everything
    chest = anatomy.chest_distance(x, y, z)
    _paint_wall(canvas, anatomy, chest, rng)
    inside = canvas.share(chest)
    # Everything inside the ribs starts as fat; liver and lungs fill most of it.
    below = canvas.share(z - anatomy.diaphragm_height(x, y))
    canvas.paint(everything, inside, FAT_HU)
    _paint_abdomen(canvas, anatomy, inside * below)
    heart = anatomy.heart_distance(x, y, z)
    lung_distance = np.maximum(chest, anatomy.diaphragm_height(x, y) - z)
    lung_distance = np.maximum(lung_distance, anatomy.mediastinum_half_width(y) - np.abs(x - anatomy.midline))
    lung_distance = np.maximum(lung_distance, anatomy.sac - heart)
    lung = canvas.share(lung_distance)
    scene = Scene(canvas, anatomy, lung, lung_distance, chest, heart, np.sign(x - anatomy.midline), {})
    _paint_lungs(scene, rng)
    _paint_heart(scene)
    _paint_great_vessels(scene)
    _paint_airways(scene)
    _paint_spine(scene)
    if canvas.keep_masks:
        scene.organs.update(lung=lung >= 0.5, heart=heart <= 0, chest=chest <= 0)
        scene.organs["aorta"] = canvas.masks.pop("aorta")
        scene.organs["bone"] = canvas.masks.pop("bone")
    return scene


def _paint_wall(canvas: Canvas, anatomy: Anatomy, chest: np.ndarray, rng: np.random.Generator) -> None:
    """Skin, fat, breasts, muscle, ribs, shoulder blades, breastbone and collar bones."""
    x, y, z = canvas.x, canvas.y, canvas.z
    a, b = anatomy.body
    flat = (np.abs(x) / a) ** 2.5 + (np.abs(y) / b) ** 2.5
    body = (flat - 1) * (wall_radius(x, y, a, b) / 2.5)  # (X, Y, 1)
    if anatomy.breast:
        for side in SIDES.values():
            center, radii = (side * 72, 30 - b, 0), (52, 22 + anatomy.breast, 58)
            canvas.paint_ellipsoid(center, radii, FAT_HU)
            canvas.paint_ellipsoid(center, [0.55 * r for r in radii], 20.0)
    outline = canvas.share(body)
    canvas.paint(canvas.everything, outline, FAT_HU)
    # Between the fat under the skin and the ribs: muscle with planes of fat, more of it where the chest is narrow.
    planes = smooth_field(canvas.grid, canvas.region, rng, 20)
    muscle = canvas.share(body + anatomy.fat) * np.clip(1.3 - chest / 40 + planes, 0, 1)
    canvas.paint(canvas.everything, muscle, MUSCLE_HU)
    angle = np.arctan2(-(y - CHEST_MIDDLE_Y), np.abs(x))  # from the back (-90 degrees) to the front (90)
    drop = 26 * (angle + np.pi / 2) / np.pi * 2.2
    # Height within the repeating stretch from rib to rib; z - floor(z) is several times faster than a remainder.
    phase = (drop + anatomy.rib_phase) / RIB_STEP_MM + z / RIB_STEP_MM
    phase -= np.floor(phase)
    phase -= 0.5
    phase *= RIB_STEP_MM
    rib = np.maximum(np.abs(chest - 4.5) - 4.0, np.abs(phase, out=phase) - 6.5)
    # The ribs end in cartilage beside the breastbone.
    rib = canvas.share(rib) * np.clip((np.abs(x) - 22) / 10, 0, 1) * (z < 125)
    canvas.paint(canvas.everything, rib, BONE_HU, "bone")
    front = CHEST_MIDDLE_Y - anatomy.chest[1]
    box, distance = canvas.tube((0, front * 0.86 - 4, 70), (0, front - 6, -35), 7)
    canvas.paint(box, canvas.share(np.maximum(distance - 9, np.abs(canvas.y[box[0], box[1]] - front + 3) - 6)), 220.0)
    for side in SIDES.values():
        blade = [(side * 70, 88, 95), (side * 98, 80, 60), (side * 88, 92, 0)]
        canvas.paint_path(blade, [6, 6, 4], BONE_HU, "bone")
        canvas.paint_path([(side * 18, -52, 96), (side * 80, -40, 122)], [7, 6], BONE_HU, "bone")


def _paint_abdomen(canvas: Canvas, anatomy: Anatomy, abdomen: np.ndarray) -> None:
    """Liver, spleen, stomach with its air bubble."""
    x = canvas.x
    liver = np.clip((26 - x - 0.35 * (canvas.y + 20)) / 12, 0, 1)
    canvas.paint(canvas.everything, abdomen * liver, LIVER_HU)
    top = anatomy.diaphragm["left"]
    canvas.paint_ellipsoid((84, 40, top - 48), (34, 40, 48), SPLEEN_HU, within=abdomen)
    canvas.paint_ellipsoid((58, -20, top - 42), (44, 44, 40), 30.0, within=abdomen)
    bubble = 10 + 16 * anatomy.stomach_air
    canvas.paint_ellipsoid((58, -44, top - 38), (bubble * 1.3, 0.6 * bubble, bubble), -950.0, within=abdomen)


def _paint_lungs(scene: Scene, rng: np.random.Generator) -> None:
    """Aerated lung, denser where it hangs (the back, patients lie on it), with branching vessels."""
    canvas, anatomy = scene.canvas, scene.anatomy
    texture = scene.field(rng, 24)
    texture *= 10
    texture += anatomy.lung_hu + 0.22 * canvas.y
    canvas.paint(canvas.everything, scene.lung, texture)
    for side, sign in SIDES.items():
        hx, hy, hz = anatomy.hilum(side)
        for index in range(7):
            # Branches fan out: heights from base to apex, directions from front to back.
            reach_z = -95 + 200 * (index + rng.uniform(0.2, 0.8)) / 7
            turn = (index * 2.4 + rng.uniform(-0.4, 0.4)) % np.pi - np.pi / 2
            width = float(anatomy.taper(reach_z))
            end = np.array((sign * (40 + 62 * np.cos(turn)) * width, 8 + 66 * np.sin(turn) * width, reach_z))
            start = np.array((hx, hy, hz))
            middle = start + 0.5 * (end - start) + rng.normal(0, 6, 3)
            canvas.paint_path([start, middle, end], [5.0, 3.4, 1.6], 40.0, within=scene.lung)
            for share in (0.35, 0.75):
                fork = middle + share * (end - middle)
                tip = fork + rng.normal(0, 22, 3)
                canvas.paint_path([fork, tip], [2.4, 1.0], 20.0, within=scene.lung)


def _paint_heart(scene: Scene) -> None:
    """Muscle with four chambers of contrasted blood."""
    canvas, anatomy = scene.canvas, scene.anatomy
    center, radii = anatomy.heart_center, anatomy.heart_radii
    canvas.paint_ellipsoid(center, radii, 110.0, anatomy.heart_turn)
    size = anatomy.heart_size
    # Along, across and up in the heart's own frame, and radii: left and right ventricle, left and right atrium.
    chambers = [((16, 12, -4), (30, 19, 28)), ((10, -20, -8), (33, 14, 26))]
    chambers += [((-24, 20, 16), (22, 15, 20)), ((-36, -8, 0), (19, 19, 26))]
    cos, sin = np.cos(anatomy.heart_turn), np.sin(anatomy.heart_turn)
    for (along, across, up), half in chambers:
        along, across, up = along * size, across * size, up * size
        place = (center[0] + cos * along - sin * across, center[1] + sin * along + cos * across, center[2] + up)
        canvas.paint_ellipsoid(place, [r * size for r in half], anatomy.blood_hu, anatomy.heart_turn)


def _paint_great_vessels(scene: Scene) -> None:
    """Aorta, pulmonary arteries, superior vena cava and the vessels of the neck."""
    canvas, anatomy = scene.canvas, scene.anatomy
    blood, m = anatomy.blood_hu, anatomy.midline
    canvas.paint_path([(-26 + m, -16, 72), (-28 + m, -12, 6)], [9, 10], blood)
    canvas.paint_path([(12 + m, -30, 2), (16 + m, -14, 30)], [14, 13], blood)
    canvas.paint_path([(16 + m, -10, 30), (-36 + m, 6, 25), (-58 + m, 16, 12)], [11, 10, 7], blood)
    canvas.paint_path([(16 + m, -10, 32), (44 + m, 18, 34), (60 + m, 22, 12)], [11, 10, 7], blood)
    for x, y in ((-22, -8), (2, 0), (20, 14)):
        canvas.paint_path([(x + m, y, 66), (1.2 * x + m, y, 145)], [6.5, 5], blood)
    canvas.paint_path(*anatomy.aorta(), blood, "aorta")


def _paint_airways(scene: Scene) -> None:
    """Windpipe, main and lobar bronchi, and the gullet behind them."""
    canvas, m = scene.canvas, scene.anatomy.midline
    canvas.paint_path([(4 + m, 31, 150), (5 + m, 30, 20), (6 + m, 30, -85)], [7, 7, 8], 40.0)
    for extra, hu in ((2.0, 30.0), (0.0, -990.0)):
        canvas.paint_path([(0, 6, 160), (m, 14, 48)], [9 + extra, 8.5 + extra], hu)
        for path in main_bronchi(scene.anatomy):
            canvas.paint_path(path, [7 + extra, 6 + extra, 4 + extra, 3 + extra], hu)


def main_bronchi(anatomy: Anatomy) -> list[list]:
    """Centre lines from the windpipe into the right and left lower lobe."""
    m = anatomy.midline
    right = [(m, 14, 48), (-34 + m, 20, 20), (-48 + m, 24, -8), (-56 + m, 32, -34)]
    left = [(m, 14, 48), (38 + m, 26, 18), (50 + m, 30, -8), (56 + m, 38, -34)]
    return [right, left]


def _paint_spine(scene: Scene) -> None:
    """Vertebral bodies with discs between them, canal, arches and spinous processes."""
    canvas, anatomy = scene.canvas, scene.anatomy
    back = canvas.box((0, SPINE_Y + 15, 0), (45, 45, 250))
    x, y, z = canvas.coordinates(back)
    body = ellipsoid_flat(x, y, (0, SPINE_Y), (18.5, 15))
    height = anatomy.vertebra_height
    phase = np.abs(z % height - height / 2)  # 0 in the middle of a vertebral body
    bone = np.clip((height / 2 - 2.5 - phase) / canvas.edge + 0.5, 0, 1)
    canvas.paint(back, canvas.share(body) + 0 * z, 90.0 + (250.0 - 90.0) * bone)
    canvas.mark(back, canvas.share(body) + 0 * z, "bone")
    arch = np.abs(ellipsoid_flat(x, y, (0, SPINE_Y + 22), (15, 12))) - 3.5
    process = np.maximum(np.abs(x) - 4, np.abs(y - SPINE_Y - 42) - 12)
    wings = np.maximum(np.abs(np.abs(x) - 26) - 12, np.abs(y - SPINE_Y - 20) - 5)
    posterior = canvas.share(np.minimum(np.minimum(arch, process), wings))
    posterior = posterior * np.clip(1.25 - phase / (0.5 * height), 0, 1)
    canvas.paint(back, posterior, BONE_HU)
    canvas.mark(back, posterior, "bone")
    canvas.paint(back, canvas.share(ellipsoid_flat(x, y, (0, SPINE_Y + 22), (9.5, 7.5))) + 0 * z, 25.0)


def ellipsoid_flat(x, y, center, radii):
    """Distance in mm to an ellipse in the axial plane, negative inside."""
    dx, dy = (x - center[0]) / radii[0], (y - center[1]) / radii[1]
    return (np.sqrt(dx * dx + dy * dy) - 1) * (sum(radii) / 2)
