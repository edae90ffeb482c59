"""Says how to install what a command needs beyond the package's own dependencies."""

from __future__ import annotations


def not_installed(error: ModuleNotFoundError, extra: str) -> str:
    """Return which library is missing, and the command that installs the extra into this Python.

    Args:
        error: of the import.
        extra: name of the extra that has the library.
    """
    library = str(error.name).partition(".")[0]
    return f"{library} is not installed, which the extra [{extra}] has; {_install(extra)}"


def _install(extra: str) -> str:
    """Return the command; from a clone the extra is installed from there, since the package need not be on an index."""
    import shlex
    import sys
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    import orjson

    try:
        stated = distribution("instructmining").read_text("direct_url.json")
    except PackageNotFoundError:  # the folders are on the path, and nothing is installed
        stated = None
    origin = orjson.loads(stated) if stated else {}
    if not origin.get("dir_info", {}).get("editable"):
        return f"pip install 'instructmining[{extra}]'"
    folder = unquote(urlsplit(origin["url"]).path)
    return f"{shlex.quote(sys.executable)} -m pip install -e {shlex.quote(f'{folder}[{extra}]')}"
