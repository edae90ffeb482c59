"""The command line: one module a command, each options → one engine or export call → message."""
