"""nf_tables expressions: bytes -> model.expr, one kind (or a few that belong together) per file.

Every decoder takes the attributes of NFTA_EXPR_DATA and returns a value or raises DecodeError;
`expression.py` has the table of them and turns every failure into an Opaque.
"""
