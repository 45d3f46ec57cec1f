"""A patient's sizes and positions, drawn from a seed, and where the organs' surfaces lie.

Coordinates are patient mm: x grows Left, y Posterior, z Superior, with the origin in the middle of the chest. Distances
are in mm and negative inside, first order near the surface: good for soft edges and for thickness, not for geodesy.
"""

from dataclasses import dataclass

import numpy as np

from brgsa_training.phantom.canvas import Point, Pose, ellipsoid_distance

# Signs of x: the patient's left is where x grows.
SIDES = {"right": -1.0, "left": 1.0}
# The chest wall's cross-section is a superellipse of this power: between an ellipse and a box.
ROUNDNESS = 2.3
CHEST_MIDDLE_Y = 4.0
CHEST_TOP_Z, CHEST_TAPER_Z = 142.0, -80.0
SPINE_Y = 61.0
LOBE_Z = {"upper": (45.0, 105.0), "middle": (-20.0, 40.0), "lower": (-85.0, -25.0)}


@dataclass
class Anatomy:
    """One patient. Abnormalities that change a shape (a large heart, a raised diaphragm) edit it before painting."""

    pose: Pose
    body: tuple[float, float]
    fat: float
    breast: float
    chest: tuple[float, float]
    midline: float
    diaphragm: dict[str, float]
    heart_size: float
    sac: float
    blood_hu: float
    lung_hu: float
    vertebra_height: float
    rib_phase: float
    stomach_air: float

    @property
    def heart_center(self) -> Point:
        """Centre of the heart; a large heart grows to the left and down more than to the right and up."""
        grown = (self.heart_size - 1) * 60
        return (24.0 + 0.35 * grown + self.midline, -24.0, -42.0 - 0.2 * grown)

    @property
    def heart_radii(self) -> Point:
        """Half axes of the heart along its own long axis, across it, and along z."""
        return (60.0 * self.heart_size, 42.0 * self.heart_size, 49.0 * self.heart_size)

    heart_turn = -0.55

    def heart_distance(self, x, y, z):
        """Distance to the heart's own surface."""
        return ellipsoid_distance(x, y, z, self.heart_center, self.heart_radii, self.heart_turn)

    def heart_surface(self, longitude: float, latitude: float, lift: float = 0.0) -> Point:
        """A point on the heart, `lift` mm above it; longitude 0 is the apex (left front), latitude 90 degrees is up."""
        radii = [radius + lift for radius in self.heart_radii]
        along = np.cos(latitude) * np.cos(longitude) * radii[0]
        across = np.cos(latitude) * np.sin(longitude) * radii[1]
        cos, sin = np.cos(self.heart_turn), np.sin(self.heart_turn)
        cx, cy, cz = self.heart_center
        return (cx + cos * along - sin * across, cy + sin * along + cos * across, cz + np.sin(latitude) * radii[2])

    def taper(self, z):
        """How wide the chest is at height z, as a share of its widest."""
        height = np.clip((z - CHEST_TAPER_Z) / (CHEST_TOP_Z - CHEST_TAPER_Z), 0, 0.9999)
        return (1 - height**2.8) ** 0.55

    def chest_distance(self, x, y, z):
        """Distance to the inner chest wall."""
        a, b = self.chest
        flat = (np.abs(x) / a) ** ROUNDNESS + (np.abs(y - CHEST_MIDDLE_Y) / b) ** ROUNDNESS  # (X, Y, 1)
        size = self.taper(z)  # (1, 1, Z)
        radius = wall_radius(x, y - CHEST_MIDDLE_Y, a, b)
        return (flat * size**-ROUNDNESS - 1) * (radius * (size / ROUNDNESS))

    def diaphragm_height(self, x, y):
        """Height z of the diaphragm over (x, y)."""
        right = self.diaphragm["right"] - 58 * (((x + 64) / 66) ** 2 + ((y - 2) / 92) ** 2)
        left = self.diaphragm["left"] - 58 * (((x - 64) / 66) ** 2 + ((y - 2) / 92) ** 2)
        middle = -96 - 40 * ((x / 60) ** 2 + ((y + 15) / 80) ** 2)
        return np.maximum(np.maximum(right, left), middle)

    def mediastinum_half_width(self, y):
        """Half width of the mediastinum without the heart, at depth y."""
        front = 9 + 17 / (1 + np.exp(-(y + 38) / 7))
        return front - 6 / (1 + np.exp(-(y - 46) / 4))

    def lung_distance(self, x, y, z):
        """Distance to the lungs' surface (chest wall, diaphragm, mediastinum or heart, whichever is nearest)."""
        distance = self.chest_distance(x, y, z)
        distance = np.maximum(distance, self.diaphragm_height(x, y) - z)
        distance = np.maximum(distance, self.mediastinum_half_width(y) - np.abs(x - self.midline))
        return np.maximum(distance, self.sac - self.heart_distance(x, y, z))

    def lung_point(
        self, rng: np.random.Generator, side: str, z_range: tuple[float, float], depth: tuple[float, float]
    ) -> Point:
        """Draw a point of one lung between two heights and two distances (mm) below the lung's surface."""
        count = 64
        z = rng.uniform(*z_range, count)
        x = SIDES[side] * rng.uniform(12, self.chest[0], count)
        y = rng.uniform(-self.chest[1], self.chest[1], count) + CHEST_MIDDLE_Y
        inside = -self.lung_distance(x, y, z)
        # The nearest to what was asked for, so that a thin lung still gives a point.
        miss = np.maximum(depth[0] - inside, inside - depth[1])
        best = int(np.argmax(miss <= 0)) if (miss <= 0).any() else int(np.argmin(miss))
        return (float(x[best]), float(y[best]), float(z[best]))

    def wall_point(self, angle: float, z: float, depth: float = 0.0) -> Point:
        """A point `depth` mm inside the chest wall; angle 0 is the patient's left, 90 degrees is the back."""
        a, b = (half * float(self.taper(z)) - depth for half in self.chest)
        cos, sin = np.cos(angle), np.sin(angle)
        reach = (np.abs(cos / a) ** ROUNDNESS + np.abs(sin / b) ** ROUNDNESS) ** (-1 / ROUNDNESS)
        return (float(cos * reach), float(sin * reach) + CHEST_MIDDLE_Y, z)

    def hilum(self, side: str) -> Point:
        """Where the vessels and bronchi enter a lung."""
        return (SIDES[side] * 38 + self.midline, 14.0, 22.0)

    def aorta(self) -> tuple[list[Point], list[float]]:
        """Centre line and radii: ascending, arch, descending."""
        m = self.midline
        points = [(-6, -16, 2), (-13, -17, 40), (-4, -6, 62), (10, 14, 69), (23, 34, 62), (26, 44, 44)]
        points += [(24, 45, -20), (18, 46, -90), (8, 44, -200)]
        return [(x + m * (z > -20), y, z) for x, y, z in points], [16, 16, 15, 14.5, 14, 13.5, 13, 12, 11]


def wall_radius(x, y, a: float, b: float):
    """Distance from the axis to an ellipse of half axes a and b, in the direction of (x, y)."""
    length2 = x * x + y * y + 1e-3
    return np.sqrt(length2 / ((x / a) ** 2 + (y / b) ** 2 + 1e-6))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a healthy patient: sizes vary by a few percent, contrast is always given but never equally well timed."""
    width = rng.normal(1, 0.025)
    fat = rng.uniform(8, 20)
    chest = (124 * width, 86 * rng.normal(1, 0.025))
    return Anatomy(
        pose=Pose(
            turn=float(rng.normal(0, 0.025)),
            scale=tuple(float(s) for s in np.clip(rng.normal(1, 0.015, 3) * rng.normal(1, 0.01), 0.94, 1.05)),
            shift=tuple(float(s) for s in rng.normal(0, (3, 3, 4))),
        ),
        body=(chest[0] + 27 + fat, chest[1] + 17 + fat),
        fat=fat,
        breast=float(rng.uniform(18, 38)) if rng.random() < 0.5 else 0.0,
        chest=chest,
        midline=float(rng.normal(0, 1.0)),
        diaphragm={"right": float(rng.normal(-60, 4)), "left": float(rng.normal(-70, 4))},
        heart_size=float(np.clip(rng.normal(1, 0.035), 0.92, 1.08)),
        sac=float(rng.uniform(3, 5)),
        blood_hu=float(rng.uniform(170, 230)),
        lung_hu=float(rng.uniform(-880, -845)),
        vertebra_height=float(rng.uniform(23, 26)),
        rib_phase=float(rng.uniform(0, 26)),
        stomach_air=float(rng.uniform(0, 1)),
    )
