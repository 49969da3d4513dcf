"""One module for each format that is read, with ``open_source``; what they are made of is in ``parts``."""
