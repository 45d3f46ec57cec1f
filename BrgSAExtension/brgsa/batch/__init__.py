"""Many scans: scoring, embedding, an index, search."""
