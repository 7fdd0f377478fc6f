"""Tests of the nodes, in real ComfyUI installations."""
