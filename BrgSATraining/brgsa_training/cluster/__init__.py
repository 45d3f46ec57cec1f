"""Preprocessing and scoring on a Ray cluster: the same code per case as on one machine, spread by Ray Data."""
