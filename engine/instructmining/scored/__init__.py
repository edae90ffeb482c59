"""What `score` wrote: read, selected from, described, compared and scored by another rule."""
