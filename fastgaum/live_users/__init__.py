"""Users of a fitted model, who live on from display to display."""
