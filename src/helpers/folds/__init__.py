"""Which samples stay together: folds, spatial blocks, and weights of sampling intensity."""
