"""One file per task: data -> items, prompt, quality metric."""
