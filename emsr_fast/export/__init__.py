"""The command ``export``: a model as a file for other programs."""
