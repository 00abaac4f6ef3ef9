"""The tracker inside the evaluation toolkits of others, through their published interfaces."""
