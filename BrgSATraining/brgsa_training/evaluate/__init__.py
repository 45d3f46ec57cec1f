"""Evaluation: benchmarks, two protocols (`paper` as released, `honest` by default), retrieval and the modality gap."""
