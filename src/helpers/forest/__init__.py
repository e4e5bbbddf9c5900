"""The random forests: grid search, growing, files, and the ice that they let expect."""
