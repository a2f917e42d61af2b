"""Long runs that look for what a short test meets by luck only: ``make jobs-soak``."""
