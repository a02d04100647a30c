"""What commands do, callable from Python: stores and heads meet here; no click, no printing."""
