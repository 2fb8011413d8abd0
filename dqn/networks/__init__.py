"""Functions with weights: layers, torsos, heads and the Q-network they make."""
