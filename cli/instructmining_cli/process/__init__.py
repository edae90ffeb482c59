"""The process itself: signals, memory, the terminal."""
