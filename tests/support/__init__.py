"""Models, clips and hosts that the tests share."""
