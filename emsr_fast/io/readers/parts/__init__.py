"""What readers share, and parts of a format that are long enough for a module of their own."""
