"""A gallery for reviewing: every picture with its captions, and where the model looked for each token."""
