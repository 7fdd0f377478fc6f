"""Image autoencoders (VAEs) whose decoder is more than Stable Diffusion's."""
