"""Stories of any length, made by one of four methods."""
