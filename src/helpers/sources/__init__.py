"""Where raw material comes from: the virtual landscape, open data, a user's own files."""
