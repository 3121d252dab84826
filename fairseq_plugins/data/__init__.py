"""What a model is trained on: mixtures of bitexts, and what goes beside their sentence pairs."""
