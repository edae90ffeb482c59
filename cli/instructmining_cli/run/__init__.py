"""A scoring run as the user sees it: progress, resuming, what is kept between runs."""
