"""Starts Dream Lab: ``python bot.py``; ``python bot.py --help`` says what else it can do."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an old Python would show a traceback instead
    sys.exit(f"Dream Lab needs Python 3.11 or newer; this is {sys.version.split()[0]}.")

# Python's multiprocessing imports the main module again: only the first one starts anything.
if __name__ == "__main__":
    from bot.cli import main

    sys.exit(main())
