"""Where the model library meets ComfyUI: nothing outside this folder imports ``comfy.*``."""
