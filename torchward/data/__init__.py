"""What flows between worlds, policies and learners: the nouns, and trees of tensors."""
