"""The moving-shapes world: its scenes, drawn and captioned."""
