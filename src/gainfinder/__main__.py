"""`python -m gainfinder` is the `gainfinder` command."""

from .cli import main

if __name__ == "__main__":
    main()
