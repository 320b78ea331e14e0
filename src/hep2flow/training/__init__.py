"""Training of a network: the loop, its steps, and checkpoints."""
