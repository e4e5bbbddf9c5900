"""From predictors and forests to maps, storage, its interval, and where to believe them."""
