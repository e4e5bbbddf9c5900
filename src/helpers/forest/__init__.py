"""The random forests: grid search, growing, calibration, files, and what they say of ice."""
