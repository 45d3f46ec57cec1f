"""Training data: scans of several data sets, the cache of preprocessed volumes, captions, and batches of both."""
