"""Measure how well videos and stories follow their prompts, in the world of moving shapes."""
