"""What the commands of ``captioner`` do with their arguments, one module a subject."""
