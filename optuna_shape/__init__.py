"""Find the depth and width of a neural network that fits a device, inside Optuna."""
