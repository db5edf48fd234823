"""Problems with the settings that solve them, and the way from a name to an algorithm or a task."""
