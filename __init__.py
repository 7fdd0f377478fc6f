"""What ComfyUI loads. A plain Python import of this folder, with no ComfyUI, is harmless."""

try:
    import comfy_api.latest  # noqa: F401  (its absence means: not inside ComfyUI)
except ImportError:
    __all__: list[str] = []
else:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
