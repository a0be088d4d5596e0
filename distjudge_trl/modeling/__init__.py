"""Models by name, how they are loaded, and what libraries do to them that a judge has to undo."""
