"""What the model saw at every probe of an instance: recorded, saved and loaded."""
