"""The process that answers Slicer's panel."""
