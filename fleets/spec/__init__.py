"""The studio's YAML: typed models, a loader whose errors name the line and the mend."""
