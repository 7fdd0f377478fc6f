"""What the host's memory manager owns, and what every MODEL carries."""
