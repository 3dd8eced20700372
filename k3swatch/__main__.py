"""`python -m k3swatch`."""

from k3swatch.cli import entry

if __name__ == "__main__":
    entry()
