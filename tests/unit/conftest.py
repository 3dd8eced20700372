"""Settings of the unit tier."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no reason to call a test flaky: pytest-timeout bounds each as a whole.
settings.register_profile("k3swatch", deadline=None)
settings.load_profile("k3swatch")
