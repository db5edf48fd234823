"""The tests mirror the package: one file for each of its files, and a few that look at the whole."""
