"""A virtual Northeast China with a hidden truth, by which methods are judged; nothing in `helpers` knows of it."""
