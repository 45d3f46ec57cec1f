"""A chest phantom of a few ellipsoids: a volume to try the panel with when there is no network and no scan."""

import numpy as np

SPACING = (3.0, 3.0, 5.0)  # mm along I, J, K
SHAPE = (64, 128, 128)  # K, J, I

# HU, centre (mm Left, Posterior, Superior of the middle), half axes (mm); later ones cover earlier ones.
_SOLIDS = (
    ("body", 30, (0, 0, 0), (165, 115, 400)),
    ("fat", -100, (0, 0, 0), (160, 110, 400)),
    ("muscle", 45, (0, 0, 0), (148, 98, 400)),
    ("right lung", -860, (-72, 0, 0), (55, 78, 125)),
    ("left lung", -860, (72, 0, 0), (55, 78, 125)),
    ("heart", 40, (25, -30, -45), (52, 45, 55)),
    ("aorta", 45, (18, 40, 0), (13, 13, 300)),
    ("trachea", -980, (0, 5, 120), (9, 9, 75)),
    ("spine", 250, (0, 72, 0), (20, 18, 400)),
    ("canal", 20, (0, 92, 0), (8, 8, 400)),
    ("liver", 60, (-70, -5, -150), (85, 85, 60)),
    ("spleen", 50, (85, 25, -150), (50, 60, 45)),
    ("right effusion", 10, (-75, 60, -70), (48, 26, 60)),
    ("nodule", 35, (78, -20, 50), (9, 9, 9)),
)


def make_phantom(seed: int = 0) -> np.ndarray:
    """Return the phantom, (K, J, I) int16 HU, axes growing Superior, Posterior, Left.

    It has an effusion on the right and a nodule in the left lung.
    """
    k, j, i = (
        (np.arange(size, dtype=np.float32) - (size - 1) / 2) * step
        for size, step in zip(SHAPE, reversed(SPACING), strict=True)
    )
    hu = np.full(SHAPE, -1000.0, np.float32)
    for _name, value, (left, posterior, superior), (a, b, c) in _SOLIDS:
        inside = (
            ((i - left) / a) ** 2 + (((j - posterior) / b) ** 2)[:, None] + (((k - superior) / c) ** 2)[:, None, None]
        ) <= 1.0
        hu[inside] = value
    noise = np.random.default_rng(seed).normal(0.0, 15.0, SHAPE)
    return np.clip(hu + noise, -1024, 3071).astype(np.int16)
