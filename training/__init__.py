"""Training of captioning models: data, features, cross-entropy and self-critical training, evaluation."""
