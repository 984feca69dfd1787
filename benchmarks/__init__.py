"""What this project says about itself in figures, and the scripts that measured it."""
