"""Training of captioning models: data, features, the training loop, metrics, evaluation."""
