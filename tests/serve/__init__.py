"""The page on which people judge answers."""
