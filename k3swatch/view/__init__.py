"""See k3swatch/__init__.py for what this layer is."""
