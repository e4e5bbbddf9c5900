"""From field tables to labelled samples with predictors, and their 70/30 split."""
