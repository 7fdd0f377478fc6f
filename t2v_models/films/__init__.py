"""Long videos of stories, made by one of four methods: `Film` in film.py is what users call."""
