"""How far a result can be trusted: runs that should agree, and the residual to the input; see docs/trust.md."""
