"""What scripts/live is made of."""
