"""``python -m instructmining``: the command line; the one import from here upwards."""

from __future__ import annotations

from instructmining_cli.main import main

if __name__ == "__main__":
    main()
