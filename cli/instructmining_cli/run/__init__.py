"""A scoring run as the user sees it: progress, a summary, the disk space that it needs, and the demo bundle."""
