"""Scans: finding, reading, checking."""
