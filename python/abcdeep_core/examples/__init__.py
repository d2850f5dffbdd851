"""Complete examples that run from the command line (extra ``[examples]``)."""
