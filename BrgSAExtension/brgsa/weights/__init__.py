"""Weights: folder, checksums, released checkpoint, bundles."""
