"""SAM-5, SPC-5 and SBC-4: what a task means. Knows volumes only by their interface."""
