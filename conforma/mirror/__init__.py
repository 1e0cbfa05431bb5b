"""Moving images, with everything a validation needs, between registries, layouts and archives."""
