"""Programs that run in the environment of the peers, and import nothing of torchward."""
