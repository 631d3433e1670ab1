"""Small files of trained networks: pruning, weight sharing, and lossless coding of the result."""
