"""Semantic summarization: from radiology reports to abnormalities, captions and labels (docs/summarization.md)."""
