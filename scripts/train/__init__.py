"""Training for sparse reading: soft-mask attention, fine-tuning, pretraining, evaluation (docs/training.md)."""
