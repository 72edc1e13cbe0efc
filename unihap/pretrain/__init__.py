"""Pre-training of the encoder on unlabelled person crops: HAP (Yuan et al. 2023, arXiv:2310.20695)."""
