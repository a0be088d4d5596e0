"""`distjudge-trl sweep`: a recipe's grid as an Optuna study, a process a trial, resumable, on one machine or many."""
