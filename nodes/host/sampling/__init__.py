"""One sampling run in the host: schedules, windows, noise and previews."""
