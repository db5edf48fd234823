"""Control: other people's environments, made to speak one protocol."""
