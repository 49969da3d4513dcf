"""One slice as LR, bicubic, SR and trust in one picture."""
