"""BrgSA: score a chest CT against abnormalities written in plain words."""

__version__ = "0.1.0"
