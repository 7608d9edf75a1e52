"""Many small training runs and what they tell: own scaling laws, hyperparameters, ablations."""
