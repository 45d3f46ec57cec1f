"""Pretraining with the knowledge bank: loss, trainer, checkpoints, and what they need."""
