"""From raw rasters to the predictors on the reference grid, a module a family."""
