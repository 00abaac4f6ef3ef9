"""Which student fits a budget: what layers matter, what they cost on a device, and a search over shapes."""
