"""Tasks: thin modules that compose the rooms. They hold no primitive."""
