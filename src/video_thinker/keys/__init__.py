"""Keys of the configs: which there are, what their values must be, and where a value was set. Free of torch."""
