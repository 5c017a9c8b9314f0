"""Foreign models: modules of other projects, built from a recipe, probed for branches, traced as they are."""
