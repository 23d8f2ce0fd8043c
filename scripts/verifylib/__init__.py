"""What scripts/verify-on-aws is made of."""
