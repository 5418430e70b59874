"""The loops: train, explain, score, randomise. What they need of the store is handed to them."""
