"""The world of moving shapes: its scenes, their frames and their captions."""
