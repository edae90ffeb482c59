"""One module per command: its options and the calls it makes."""
