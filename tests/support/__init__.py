"""Models, clips and a fake GPU that the tests share."""
