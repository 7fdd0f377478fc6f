"""A general training loop and optimiser, and the training of the built-in model in `builtin`."""
