"""What scored sets are like, how two of them differ, and their predictions by another rule."""
