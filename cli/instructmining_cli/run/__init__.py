"""A scoring run as the user sees it: progress, resuming, and what is cached between runs."""
