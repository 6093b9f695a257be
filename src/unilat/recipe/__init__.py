"""What a run is made by: its configuration, complete ones by name, and the networks they describe with their cost."""
