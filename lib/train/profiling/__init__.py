"""How fast training is: the loader, the step, and what the device could do at best."""
