"""Files that are put in place whole."""
