"""Pictures of timelines, losses and grids."""
