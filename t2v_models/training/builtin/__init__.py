"""How the built-in model was made, stage by stage."""
