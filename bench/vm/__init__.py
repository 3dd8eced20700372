"""What connections cost with k3swatch and with other watchers, on stock kernels: `make bench-vm`."""
