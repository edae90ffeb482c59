"""Options that several commands share, and checks of their values."""
