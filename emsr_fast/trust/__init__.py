"""How far a result can be trusted: runs that should agree, and the way back to the input; see docs/trust.md."""
