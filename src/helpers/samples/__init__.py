"""From the tables of a field campaign to labelled samples with predictors, and their 70/30 split."""
