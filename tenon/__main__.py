"""`python -m tenon` is the `tenon` command."""

from tenon.cli import main

if __name__ == "__main__":
    main()
