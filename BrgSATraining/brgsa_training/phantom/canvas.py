"""The sheet on which a phantom is painted: HU on a grid, in the patient's own millimetres.

Shapes are continuous functions of position. A voxel on an edge receives the share of the shape that it holds, so thin
structures fade on coarse grids as they do in thick slices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from brgsa_training.phantom.grid import Grid

Point = Sequence[float]
Box = tuple[slice, slice, slice]
AIR_HU = -1000.0
# A voxel belongs to a mask when at least half of it is filled.
MASK_SHARE = 0.5


@dataclass(frozen=True)
class Pose:
    """How the patient lies in the field: position in mm = turn(patient mm * scale) + shift, turned about Superior."""

    turn: float
    scale: tuple[float, float, float]
    shift: tuple[float, float, float]


@dataclass
class Canvas:
    """HU (float32, axes Left, Posterior, Superior) of the part of a grid that holds the body.

    `middle` and `half_width` say in patient mm what part that is. x and y have shape (X, Y, 1) and z (1, 1, Z), also in
    patient mm, so a function of (x, y) costs two dimensions only.
    """

    grid: Grid
    pose: Pose
    middle: Point
    half_width: Point
    keep_masks: bool = False
    masks: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.region = self._index_box(self.middle, self.half_width, [slice(0, n) for n in self.grid.shape])
        gx, gy, gz = (axis[part] for axis, part in zip(self.grid.axes, self.region, strict=True))
        cos, sin = math.cos(self.pose.turn), math.sin(self.pose.turn)
        dx, dy = (gx - self.pose.shift[0])[:, None, None], (gy - self.pose.shift[1])[None, :, None]
        self.x = ((cos * dx + sin * dy) / self.pose.scale[0]).astype(np.float32)
        self.y = ((cos * dy - sin * dx) / self.pose.scale[1]).astype(np.float32)
        self.z = ((gz - self.pose.shift[2]) / self.pose.scale[2])[None, None, :].astype(np.float32)
        self.shape = (self.x.shape[0], self.y.shape[1], self.z.shape[2])
        self.edge = float(np.mean(self.grid.spacing))
        self.hu = np.full(self.shape, AIR_HU, np.float32)
        self.everything: Box = tuple(slice(0, n) for n in self.shape)

    def _index_box(self, center: Point, half_width: Point, limits: Sequence[slice]) -> Box:
        """Grid indices of a box given in patient mm, cut at `limits`."""
        (sx, sy, sz), cos, sin = self.pose.scale, math.cos(self.pose.turn), math.sin(self.pose.turn)
        cx, cy, cz = center[0] * sx, center[1] * sy, center[2] * sz
        hx, hy, hz = half_width[0] * sx, half_width[1] * sy, half_width[2] * sz
        middle = (cos * cx - sin * cy, cos * cy + sin * cx, cz)
        reach = (cos * hx + abs(sin) * hy, cos * hy + abs(sin) * hx, hz)
        box = []
        for axis in range(3):
            step, limit = self.grid.spacing[axis], limits[axis]
            # Voxel 0 lies half a step inside the field, which is centred on the origin.
            position = (middle[axis] + self.pose.shift[axis]) / step + (self.grid.shape[axis] - 1) / 2
            low = max(int(position - reach[axis] / step) - 1, limit.start)
            high = min(int(position + reach[axis] / step) + 3, limit.stop)
            box.append(slice(low, max(low, high)))
        return tuple(box)

    def box(self, center: Point, half_width: Point) -> Box:
        """Canvas indices of a box in patient mm; empty where it lies outside the canvas."""
        whole = self._index_box(center, half_width, self.region)
        return tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(whole, self.region, strict=True))

    def coordinates(self, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Patient mm of a box: x and y of shape (x, y, 1), z of shape (1, 1, z)."""
        return self.x[box[0], box[1]], self.y[box[0], box[1]], self.z[:, :, box[2]]

    def ellipsoid(self, center: Point, radii: Point, turn: float = 0.0, margin: float = 0.0) -> tuple[Box, np.ndarray]:
        """Box and distance in mm (negative inside, first order) to an ellipsoid.

        `turn`: radians about Superior; `margin`: how many mm outside the surface the box shall reach.
        """
        reach = max(radii[0], radii[1]) if turn else None
        around = margin + self.edge
        box = self.box(center, [(reach or r) + around for r in radii[:2]] + [radii[2] + around])
        x, y, z = self.coordinates(box)
        return box, ellipsoid_distance(x, y, z, center, radii, turn)

    def tube(self, start: Point, end: Point, radius: float, end_radius: float | None = None, margin: float = 0.0):
        """Box and distance in mm (negative inside) to a capsule from `start` to `end`, tapering to `end_radius`."""
        end_radius = radius if end_radius is None else end_radius
        around = max(radius, end_radius) + margin + self.edge
        box = self.box(
            [(s + e) / 2 for s, e in zip(start, end, strict=True)],
            [abs(e - s) / 2 + around for s, e in zip(start, end, strict=True)],
        )
        x, y, z = self.coordinates(box)
        vx, vy, vz = (float(e - s) for s, e in zip(start, end, strict=True))
        length2 = max(vx * vx + vy * vy + vz * vz, 1e-6)
        dx, dy, dz = x - float(start[0]), y - float(start[1]), z - float(start[2])
        # Along the axis from 0 to 1 without and with ends, then |d - along v|^2 = |d|^2 - along (2 free - along) |v|^2.
        free = (dx * vx + dy * vy) * (1 / length2) + dz * (vz / length2)
        along = np.maximum(free, 0)
        np.minimum(along, 1, out=along)
        free *= 2
        free -= along
        free *= along
        free *= length2
        distance = (dx * dx + dy * dy) + dz * dz
        distance -= free
        np.sqrt(np.abs(distance, out=distance), out=distance)
        along *= end_radius - radius
        distance -= along
        distance -= radius
        return box, distance

    def share(self, distance: np.ndarray) -> np.ndarray:
        """How much of each voxel lies inside a surface, from the distance to it in mm (negative inside)."""
        share = distance * (-1 / self.edge)
        share += 0.5
        np.maximum(share, 0, out=share)
        return np.minimum(share, 1, out=share)

    def paint(self, box: Box, share: np.ndarray, hu, mask: str | None = None) -> None:
        """Blend `hu` (number or array) into a box by `share` in [0, 1]; note the voxels under the name `mask`."""
        part = self.hu[box]
        part += share * (hu - part)
        if mask is not None:
            self.mark(box, share, mask)

    def mark(self, box: Box, share: np.ndarray, mask: str) -> None:
        """Add voxels to a mask without painting."""
        if self.keep_masks:
            if mask not in self.masks:
                self.masks[mask] = np.zeros(self.shape, bool)
            self.masks[mask][box] |= share >= MASK_SHARE

    def paint_ellipsoid(
        self, center: Point, radii: Point, hu: float, turn: float = 0.0, mask: str | None = None, within=None
    ):
        """Paint an ellipsoid; `within`, a share array of the whole canvas, cuts it."""
        box, distance = self.ellipsoid(center, radii, turn)
        share = self.share(distance)
        self.paint(box, share if within is None else share * within[box], hu, mask)

    def paint_path(
        self, points: Sequence[Point], radii: Sequence[float], hu: float, mask: str | None = None, within=None
    ):
        """Paint a chain of tapering tubes through `points`, with one radius per point."""
        for start, end, radius, end_radius in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            box, distance = self.tube(start, end, radius, end_radius)
            share = self.share(distance)
            self.paint(box, share if within is None else share * within[box], hu, mask)

    def whole_grid(self, part: np.ndarray, outside) -> np.ndarray:
        """Place an array of the canvas into one of the whole grid."""
        whole = np.full(self.grid.shape, outside, part.dtype)
        whole[self.region] = part
        return whole


def ellipsoid_distance(x, y, z, center: Point, radii: Point, turn: float = 0.0):
    """Distance in mm to an ellipsoid, negative inside; exact for spheres and first order at the surface otherwise."""
    dx, dy = x - float(center[0]), y - float(center[1])
    if turn:
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    flat = (dx / float(radii[0])) ** 2 + (dy / float(radii[1])) ** 2
    distance = np.sqrt(flat + ((z - float(center[2])) / float(radii[2])) ** 2)
    distance -= 1
    distance *= float(sum(radii)) / 3
    return distance
