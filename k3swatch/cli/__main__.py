"""`python -m k3swatch.cli`."""

from k3swatch.cli import entry

if __name__ == "__main__":
    entry()
