"""Step definitions, one module for each kind of thing a scenario talks about."""
