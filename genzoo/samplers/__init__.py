"""Floor 2: one sampling loop, the steps it takes, and the predictors it is handed."""
