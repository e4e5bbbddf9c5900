"""What all others stand on: study, files, grids, rasters, points, classes, scores, drawing."""
