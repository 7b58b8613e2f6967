"""`python -m tenon` is the `tenon` command."""

import sys

from tenon.util.python import forget_directory

if __name__ == "__main__":
    forget_directory()  # before anything else is imported
    try:
        from tenon.cli import main

        main()
    except KeyboardInterrupt:  # while modules were imported
        sys.exit(130)
