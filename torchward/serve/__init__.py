"""A local page on which people talk to a model and say which answers are better."""
