"""`python -m tenon` is the `tenon` command."""

from tenon.util.python import forget_directory

if __name__ == "__main__":
    forget_directory()  # before anything else is imported
    from tenon.cli import main

    main()
