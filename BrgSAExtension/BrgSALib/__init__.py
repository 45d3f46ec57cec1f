# ruff: noqa: N999 (Slicer names the folder MODULELib)
"""The 3D Slicer side of BrgSA: panel, scene and the other end of the worker's pipes.

Runs inside Slicer's own process, so it imports no torch, transformers, monai, nibabel or SimpleITK. Of `brgsa` it
imports `abnormalities` and `protocol` (and what these import), which are pure standard library; everything else is
asked of `brgsa worker`.
"""
