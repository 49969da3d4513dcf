"""Pictures that several commands write."""
