"""What may see what: schedules, layouts, masks, packed views. Pure functions, no Hugging Face."""
