"""BrgSA training: summarize reports, pretrain with the knowledge bank, evaluate on benchmarks."""
