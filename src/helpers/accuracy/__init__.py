"""How right the map is: confusion matrices, kappa, estimates from folds, importance."""
