"""A page that shows a finished map and answers questions on it, in one file without network."""
