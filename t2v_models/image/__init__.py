"""Pictures that a video begins with: how they are fitted, seen by a model, and moved over by a camera."""
