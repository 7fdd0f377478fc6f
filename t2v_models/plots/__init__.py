"""Images of timelines, losses and other measured values, drawn with Pillow alone."""
