"""Measurements of torchward beside its peers: commands, raw data, and the table of README.md."""
