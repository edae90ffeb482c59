"""The demo bundle: its preset, its data, and the reward head that was trained for it."""
