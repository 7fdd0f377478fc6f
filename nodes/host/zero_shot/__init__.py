"""Videos from image models of the host: attention between frames, and noise that frames share."""
