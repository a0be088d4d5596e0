"""The files of a judge's folder, for the trainer, which writes them, and for judges, which read them."""
