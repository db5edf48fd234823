"""One algorithm, one file: its config, its loss, its learner, its loop."""
