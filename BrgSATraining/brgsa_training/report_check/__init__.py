"""A second reader: what a report names beside what the model sees in the scan (docs/report-check.md)."""
