"""Options that several commands have, and what is wrong with their values."""
