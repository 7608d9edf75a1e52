"""Running a program that a model wrote: see `run.Sandbox`. `jail` and `kernel` are what its process does first."""
