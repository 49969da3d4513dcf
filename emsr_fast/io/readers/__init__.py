"""One module for each format that is read, with ``open_source``; what they share is in ``parts``."""
